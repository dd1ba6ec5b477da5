"""A gated recurrent memory."""

from jaxtyping import Float
from torch import Tensor

from worldvae.memory.latent_state import LatentState
from worldvae.memory.memory import Memory
from worldvae.networks import GRUCell, JointMLP, PerceptronKind


class GRUMemory(Memory):
    """h' = GRU(h, mlp[z, a]).

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h.
        hidden: width of the input layer.
        kind: kind of the input layer.

    Reference: Hafner et al. 2019, "Learning Latent Dynamics for Planning from Pixels", section 3.
    """

    def __init__(self, latent: int, action: int, size: int, hidden: int, kind: PerceptronKind = "normed") -> None:
        super().__init__(size)
        self.mix = JointMLP(latent, action, hidden, 1, kind=kind)
        self.cell = GRUCell(hidden, size)

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return the part of the input layer that depends on the action only."""
        out: Tensor = self.mix.project(action)
        return out

    def advance(
        self, state: LatentState, projected: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch memory"], None]:
        """Return the next memory."""
        return self.cell(self.mix(state.latent, projected), state.memory), None
