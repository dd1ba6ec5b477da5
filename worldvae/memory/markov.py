"""No memory but the last latent and action."""

from jaxtyping import Float
from torch import Tensor

from worldvae.memory.memory import Memory
from worldvae.networks import JointMLP
from worldvae.types import State


class MarkovMemory(Memory):
    """h' = mlp[z, a]: a state-space model, in which all that lasts must pass through z.

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h.
        hidden: width of the hidden layer.

    Reference: Karl et al. 2017, "Deep Variational Bayes Filters"; Hafner et al. 2019 (the SSM of figure 2b).
    """

    def __init__(self, latent: int, action: int, size: int, hidden: int) -> None:
        super().__init__(size)
        self.mix = JointMLP(latent, action, hidden, 1, size)

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return the action's share of the first layer."""
        out: Tensor = self.mix.project(action)
        return out

    def advance(
        self, state: State, projected: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch memory"], None]:
        """Return the next memory; the last one is not read."""
        return self.mix(state.latent, projected), None
