"""Bernoulli likelihoods: of a single bit, and of every entry of an image."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent

from worldvae.distributions import full_precision


class BernoulliLikelihood(nn.Module):
    """p(c = 1 | features) = sigmoid(trunk(features)); here c is the continuation, 1 - termination."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, features: Float[Tensor, "*batch features"]) -> Bernoulli:
        """Return the distribution of the bit; its `mean` is the probability of 1."""
        return Bernoulli(logits=full_precision(self.trunk(features)).squeeze(-1), validate_args=False)


class BernoulliImageLikelihood(nn.Module):
    """p(x | features) = prod_i Bernoulli(x_i; sigmoid(trunk(features)_i)) for x of zeros and ones.

    Grey values in 0..1 can be scored, too, and usually are; that is their cross-entropy but no likelihood, because it
    does not integrate to 1 over grey values (Loaiza-Ganem & Cunningham 2019, "The continuous Bernoulli").

    Args:
        trunk: network from features to logits, in the shape of x.
        event_shape: shape of one x.

    Reference: Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix C.1.
    """

    def __init__(self, trunk: nn.Module, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk, self.event_shape = trunk, event_shape

    def forward(self, features: Float[Tensor, "*batch features"]) -> Distribution:
        """Return p(x | features); its `mean` is the probability of ones."""
        logits = full_precision(self.trunk(features))
        return Independent(Bernoulli(logits=logits, validate_args=False), len(self.event_shape), validate_args=False)
