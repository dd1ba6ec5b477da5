"""The state that is the last frames and actions, and the windows of rows from which it is made."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from worldvae.types import State


@dataclass(frozen=True)
class Window(State):
    """The last frames, flat and as they are stored, oldest first, and the actions that led to each of them.

    Before an episode's first frame stand copies of it, and actions of zeros.
    """

    frames: Shaped[Tensor, "*batch context entry"]
    actions: Float[Tensor, "*batch context action"]

    def then(self, action: Float[Tensor, "batch action"]) -> Float[Tensor, "batch context action"]:
        """Return the actions taken at each of the frames, `action` at the last."""
        return torch.cat([self.actions[:, 1:], action.unsqueeze(1)], dim=1)

    def moved(self, frame: Shaped[Tensor, "batch entry"], action: Float[Tensor, "batch action"]) -> "Window":
        """Return the window after the next frame, to which `action` led."""
        return Window(torch.cat([self.frames[:, 1:], frame.unsqueeze(1)], dim=1), self.then(action))


@dataclass(frozen=True)
class PixelState(State):
    """A window and what the heads read of it.

    Attributes:
        window: the last frames and actions.
        embedding: the features.
        seen: whether the frames were seen or imagined; not in a state in which an episode starts.
    """

    window: Window
    embedding: Float[Tensor, "*batch features"]
    seen: Bool[Tensor, "*batch"]

    @property
    def features(self) -> Float[Tensor, "*batch features"]:
        """The vector that every head reads."""
        return self.embedding

    @property
    def last(self) -> Shaped[Tensor, "*batch entry"]:
        """The newest frame, as it is stored."""
        return self.window.frames[..., -1, :]

    @classmethod
    def of(cls, state: State) -> "PixelState":
        """Return `state` itself.

        Raises:
            ValueError: If it is the state of another kind of model.
        """
        if not isinstance(state, cls):
            raise ValueError(
                f"state is a {type(state).__name__}, but the last frames are needed: give a PixelState, as "
                "model.initial and model.observe return them"
            )
        return state


def windows(
    before: PixelState,
    frames: Shaped[Tensor, "batch time entry"],
    arriving: Float[Tensor, "batch time action"],
    is_first: Bool[Tensor, "batch time"],
) -> Window:
    """Return the window of every row, `[batch, time]`.

    Args:
        before: state of the row before the first one; where it has not `seen` anything, the first row is an episode's.
        frames: stored frames of the rows.
        arriving: the action taken before each row; those before an episode's first row are ignored.
        is_first: where episodes begin.
    """
    size, length = is_first.shape
    context = before.window.frames.shape[1]
    row = torch.arange(context, context + length, device=frames.device).expand(size, length)
    begins = is_first.clone()
    begins[:, 0] |= ~before.seen
    # The position, in [window before, rows], of the first row of each row's episode; 0 if that is further back.
    start = torch.where(begins, row, torch.zeros_like(row)).cummax(dim=1).values.unsqueeze(-1)
    wanted = row.unsqueeze(-1) - torch.arange(context - 1, -1, -1, device=frames.device)
    place = torch.maximum(wanted, start)
    lane = torch.arange(size, device=frames.device)[:, None, None]
    found = torch.cat([before.window.frames, frames], dim=1)[lane, place]
    actions = torch.cat([before.window.actions, arriving], dim=1)[lane, place]
    return Window(found, actions * (wanted > start).unsqueeze(-1))
