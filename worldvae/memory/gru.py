"""A gated recurrent memory."""

from jaxtyping import Float
from torch import Tensor, nn

from worldvae.networks import JointMLP


class GRUMemory(nn.Module):
    """h' = GRU(h, mlp[z, a]).

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h.
        hidden: width of the input layer.

    Reference: Hafner et al. 2019, "Learning Latent Dynamics for Planning from Pixels", section 3.
    """

    def __init__(self, latent: int, action: int, size: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        self.mix = JointMLP(latent, action, hidden, 1)
        self.cell = nn.GRUCell(hidden, size)

    def forward(
        self,
        memory: Float[Tensor, "batch memory"],
        latent: Float[Tensor, "batch latent"],
        action: Float[Tensor, "batch action"],
    ) -> Float[Tensor, "batch memory"]:
        """Return the next memory."""
        return self.step(memory, latent, self.project(action))

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return what of a step does not wait for the state: the action's share of the input layer."""
        out: Tensor = self.mix.project(action)
        return out

    def step(
        self,
        memory: Float[Tensor, "batch memory"],
        latent: Float[Tensor, "batch latent"],
        projected: Float[Tensor, "batch hidden"],
    ) -> Float[Tensor, "batch memory"]:
        """Return the next memory, for `projected = project(action)`, in the type it was computed in."""
        out: Tensor = self.cell(self.mix(latent, projected), memory)
        return out
