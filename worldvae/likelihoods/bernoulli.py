"""Bernoulli likelihood of a single bit."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli


class BernoulliLikelihood(nn.Module):
    """p(c = 1 | features) = sigmoid(trunk(features)); here c is the continuation, 1 - termination."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, features: Float[Tensor, "*batch features"]) -> Bernoulli:
        """Return the distribution of the bit; its `mean` is the probability of 1."""
        return Bernoulli(logits=self.trunk(features).float().squeeze(-1), validate_args=False)
