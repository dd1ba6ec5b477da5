"""Frames stacked with those before them, so that one stack shows motion."""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Frames = UInt8[Tensor, "*batch channel height width"] | Float[Tensor, "*batch channel height width"]


def as_bytes(pixels: Frames) -> UInt8[Tensor, "*batch channel height width"]:
    """Return frames as uint8 0..255, from uint8 or from float in 0..1 (rounded)."""
    return pixels if pixels.dtype == torch.uint8 else (pixels.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def repeated(pixels: Frames, count: int) -> UInt8[Tensor, "*batch stacked height width"]:
    """Return stacks that hold one frame `count` times, as at the beginning of an episode."""
    return as_bytes(pixels).repeat(*[1] * (pixels.dim() - 3), count, 1, 1)


def stacked(
    pixels: UInt8[Tensor, "batch time channel height width"],
    is_first: Bool[Tensor, "batch time"],
    count: int,
    previous: UInt8[Tensor, "batch past height width"] | None = None,
) -> UInt8[Tensor, "batch time stacked height width"]:
    """Return the last `count` frames of every row's episode, the oldest first; the first frame known is repeated.

    Args:
        pixels: frames of rows.
        is_first: rows that begin an episode: they do not see frames before them.
        count: frames of a stack.
        previous: the `count - 1` frames before the first row, stacked on channels; None: not known.
    """
    if count == 1:
        return pixels
    size, length, channels = pixels.shape[:3]
    before = pixels[:, :1].repeat(1, count - 1, 1, 1, 1)
    if previous is not None:
        before = previous.unflatten(1, (count - 1, channels))
    frames = torch.cat([before, pixels], dim=1)
    time = torch.arange(length, device=pixels.device)
    begun = torch.where(is_first, time, -(count - 1)).cummax(dim=1).values
    row = torch.arange(size, device=pixels.device).unsqueeze(1)
    parts = [frames[row, torch.maximum(time - back, begun) + count - 1] for back in reversed(range(count))]
    return torch.cat(parts, dim=2)


def whole(is_first: Bool[Tensor, "batch time"], count: int) -> Bool[Tensor, "batch time"]:
    """Return which rows of a slice have the stack that an agent saw there: the frames before a slice are not known."""
    late = torch.arange(is_first.shape[1], device=is_first.device) >= count - 1
    return is_first.cumsum(dim=1).bool() | late
