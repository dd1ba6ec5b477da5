"""The posterior of a single frame."""

from jaxtyping import Float
from torch import Tensor

from worldvae.distributions import LatentFamily
from worldvae.posteriors.amortised import AmortisedPosterior


class FramePosterior(AmortisedPosterior):
    """q(z | e): the posterior of a static VAE, which ignores earlier frames.

    Args:
        embedding: length of the encoder's embedding e.
        family: distribution family of z.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
    """

    def __init__(self, embedding: int, family: LatentFamily, hidden: int, layers: int = 1) -> None:
        super().__init__(0, embedding, family, hidden, layers)

    def parameters_at(
        self, memory: Float[Tensor, "*batch memory"], projected: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch parameter"]:
        """Return the family's parameters, which do not depend on the memory."""
        return super().parameters_at(memory[..., :0], projected)
