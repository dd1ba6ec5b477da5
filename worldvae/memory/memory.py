"""What every memory is: h' = f(h, z, a)."""

from jaxtyping import Float
from torch import Tensor, nn

from worldvae.memory.latent_state import LatentState


class Memory(nn.Module):
    """The deterministic part of a transition.

    Args:
        size: length of h, which the heads read.
        past: length of what else a state carries for the next step (0: nothing).
    """

    def __init__(self, size: int, past: int = 0) -> None:
        super().__init__()
        self.size, self.past_size = size, past

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return what of a step does not wait for the state, for all time steps at once."""
        raise NotImplementedError

    def advance(
        self, state: LatentState, projected: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch memory"], Float[Tensor, "batch past"] | None]:
        """Return the next memory and past, for `projected = project(action)`, in the type they were computed in.

        A state of zeros is the beginning of an episode.
        """
        raise NotImplementedError

    def forward(self, state: LatentState, action: Float[Tensor, "batch action"]) -> Float[Tensor, "batch memory"]:
        """Return the next memory."""
        return self.advance(state, self.project(action))[0].float()
