"""The base class of memories: h' = f(h, z, a)."""

from jaxtyping import Float
from torch import Tensor, nn

from worldvae.memory.latent_state import LatentState


class Memory(nn.Module):
    """The deterministic part of a transition.

    Args:
        size: length of h, which the heads read.
        past: length of further data that a state carries to the next step (0: none).
    """

    def __init__(self, size: int, past: int = 0) -> None:
        super().__init__()
        self.size, self.past_size = size, past

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return the part of a step that depends on the action only, for all time steps at once."""
        raise NotImplementedError

    def advance(
        self, state: LatentState, projected: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch memory"], Float[Tensor, "batch past"] | None]:
        """Return the next memory and past, given `projected = project(action)`, in the type they were computed in.

        A state of zeros marks the beginning of an episode.
        """
        raise NotImplementedError

    def forward(self, state: LatentState, action: Float[Tensor, "batch action"]) -> Float[Tensor, "batch memory"]:
        """Return the next memory."""
        return self.advance(state, self.project(action))[0].float()
