"""Frames: which boxes are images, and how an image of any size becomes a small uint8 frame."""

import math
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch.nn.functional import interpolate

MAX_CHANNELS = 4
"""Of one image."""

MIN_SIDE = 8

MAX_STACKED_CHANNELS = 32
"""Of several images that are stacked in one Box."""

MIN_STACKED_SIDE = 32
"""From which side on an axis of more than 4 entries holds images: boards of games have planes, too, but are smaller."""

MAX_LEVELS = 2**16
"""Of an image of integers: a space with more of them has no bounds, but a type."""


@dataclass(frozen=True)
class ImageFormat:
    """How the array of an image Box is to be read: where its channels are and between which values it lies.

    Attributes:
        height_axis: Where the height is.
        width_axis: Where the width is; the other axes are merged, in their order, into channels.
        channels: Entries of those other axes together.
        low: Value that is shown as 0.
        high: Value that is shown as 255.
    """

    height_axis: int
    width_axis: int
    channels: int
    low: float
    high: float

    def to_bytes(self, image: Shaped[np.ndarray, "..."]) -> UInt8[np.ndarray, "height width channel"]:
        """Return the image as uint8 with channels last; values outside of `low..high` are clipped."""
        image = np.moveaxis(image, (self.height_axis, self.width_axis), (0, 1))
        image = image.reshape(*image.shape[:2], self.channels)
        if image.dtype == np.uint8 and (self.low, self.high) == (0.0, 255.0):
            return image
        unit = (image.astype(np.float64) - self.low) / (self.high - self.low)
        return np.rint(255 * np.clip(unit, 0.0, 1.0)).astype(np.uint8)

    def stray(self, image: Shaped[np.ndarray, "..."]) -> float | None:
        """Return the value that lies farthest outside of `low..high`, None where none does by more than a grey level.

        (Resizing or summing in floating point may overshoot by a little, which clipping does not show.)
        """
        if image.dtype == np.uint8 and (self.low, self.high) == (0.0, 255.0):
            return None
        least, most = float(image.min()), float(image.max())
        worst = least if self.low - least > most - self.high else most
        beyond = max(self.low - worst, worst - self.high)
        return worst if beyond > (self.high - self.low) / 255 else None


def image_format(space: gym.Space[Any]) -> ImageFormat | None:
    """Return how to read `space` as an image, or None where it is not one.

    An image is a Box of numbers with one finite lower and one finite upper bound for all its entries, of shape
    (height, width), (height, width, channel) or (channel, height, width) with 1 to 4 channels. Integers other than
    uint8 need bounds that are 255 to 65535 apart: fewer values are symbols, more are no bounds but those of the type.
    Sides below 8 are no picture but a table of symbols, too (MiniGrid's 7×7×3 view), and better read as a vector.

    Several images may be stacked, as frames of the recent past or of several cameras: along a fourth axis, the first
    or the last, or in place of the channels, up to 32 channels together.
    """
    if not isinstance(space, gym.spaces.Box) or len(space.shape) not in (2, 3, 4) or 0 in space.shape:
        return None
    low, high = float(space.low.min()), float(space.high.max())
    uniform = bool((space.low == space.low.min()).all() and (space.high == space.high.max()).all())
    if not (uniform and np.isfinite([low, high]).all() and low < high):
        return None
    if space.dtype.kind in "iu" and space.dtype != np.uint8 and not 255 <= high - low < MAX_LEVELS:
        return None
    axes = _sides(space.shape)
    if axes is None:
        return None
    height, width = axes
    channels = math.prod(space.shape) // (space.shape[height] * space.shape[width])
    return ImageFormat(height, width, channels, low, high)


def _sides(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Return which axes are the height and the width of images, or None where there are no images."""
    one, stack = (MAX_CHANNELS, MIN_SIDE), (MAX_STACKED_CHANNELS, MIN_STACKED_SIDE)
    if len(shape) == 4:
        candidates, limits = [(1, 2), (2, 3), (0, 1)], [(MAX_STACKED_CHANNELS, MIN_SIDE)]
    else:
        candidates, limits = [(0, 1), (1, 2)][: len(shape) - 1], [one, stack]
    for most, least in limits:
        for height, width in candidates:
            area = shape[height] * shape[width]
            if min(shape[height], shape[width]) >= least and 1 <= math.prod(shape) // area <= most:
                return height, width
    return None


def shrink(
    image: UInt8[np.ndarray, "_ _ channel"], size: tuple[int, int]
) -> UInt8[np.ndarray, "channel new_height new_width"]:
    """Resize an image to `size` (height, width), channels first, as a copy.

    Every source pixel contributes to the result (antialiased bilinear), so details thinner than a new pixel fade
    instead of vanishing. Torch does this on uint8 in 0.08 ms for 400×600 to 64×64 (PIL's box filter: 0.4 ms).
    """
    if image.shape[:2] == size:
        return np.array(image.transpose(2, 0, 1), order="C")  # np.ascontiguousarray would not copy every image
    # torch refuses negative strides and warns of arrays that cannot be written to: only those are copied
    channels_last = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    small = interpolate(channels_last.permute(2, 0, 1)[None], size=size, mode="bilinear", antialias=True)[0]
    return small.contiguous().numpy()
