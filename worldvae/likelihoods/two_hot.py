"""Two-hot likelihood of a scalar of any scale."""

from jaxtyping import Float
from torch import Tensor, nn

from worldvae.distributions import TwoHot


class TwoHotLikelihood(nn.Module):
    """p(r | features) as a categorical distribution over symexp-spaced bins; used for rewards and values."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, features: Float[Tensor, "*batch features"]) -> TwoHot:
        """Return the distribution of the scalar."""
        return TwoHot(self.trunk(features).float())
