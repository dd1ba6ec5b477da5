"""Frames of any number of channels as pictures in colour.

A frame does not say what its channels mean, so they are interpreted by their number and their movement:

- 1: grey. 2: two greys, whose mean is shown. 3: red, green and blue.
- 4, the last of which never changes: colours and an alpha channel, which is not shown.
- 4 or more that are a stack with the newest image last: the newest image. A stack is recognised by its movement: from
  frame to frame its channels shift by the number of new ones, as 1, 2, 3, 4 is followed by 2, 3, 4, 5. If their number
  and that of the new ones are multiples of 3, images are in colour.
- any other 4: a picture in colour, and beside it the fourth channel (a depth, a second camera) in grey.
- any other multiple of 3: several pictures in colour, in tiles. Any other number: every channel in grey, in tiles.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


@dataclass(frozen=True)
class Reading:
    """The interpretation of channels, which is the same for all rows of a film.

    Attributes:
        images: The channels of each image that is shown: red, green and blue, or one or two greys.
    """

    images: tuple[tuple[int, ...], ...]

    def picture(self, frames: Float[Tensor, "*batch channel height width"]) -> Float[Tensor, "*batch tall wide 3"]:
        """Return the images in colour; several images are arranged in tiles, row by row."""
        return _tiled([_coloured(frames[..., list(image), :, :]) for image in self.images])

    def error(
        self,
        frames: Float[Tensor, "*batch channel height width"],
        truth: Float[Tensor, "*batch channel height width"],
    ) -> Float[Tensor, "*batch tall wide"]:
        """Return the absolute error, the mean over the channels of each image, where `picture` shows that image."""
        wrong = (frames - truth).abs()
        means = [wrong[..., list(image), :, :].mean(dim=-3) for image in self.images]
        return _tiled([mean.unsqueeze(-1) for mean in means]).squeeze(-1)


def read_channels(frames: Shaped[Tensor, "batch time channel height width"]) -> Reading:
    """Return the interpretation of the channels of frames, by the rules at the top of this module.

    Args:
        frames: What happened, episode by episode.
    """
    number = frames.shape[2]
    every = tuple(range(number))
    if number <= 3:
        return Reading((every,))
    if number == 4 and bool((frames[:, :, 3] == frames[0, 0, 3, 0, 0]).all()):
        return Reading((every[:3],))
    if step := _step_of_stack(frames):
        colours = number % 3 == 0 and step % 3 == 0
        return Reading((every[-3:] if colours else every[-1:],))
    if number == 4:
        return Reading((every[:3], every[3:]))
    size = 3 if number % 3 == 0 else 1
    return Reading(tuple(every[i : i + size] for i in range(0, number, size)))


def _step_of_stack(frames: Shaped[Tensor, "batch time channel height width"]) -> int:
    """Return by how many channels a stack shifts from frame to frame; 0 if it is not a stack, or does not change."""
    before, after = frames[:, :-1], frames[:, 1:]
    for step in range(1, frames.shape[2]):
        still, up = before[:, :, :-step], before[:, :, step:]
        moved = (after[:, :, :-step] != still).flatten(2).any(dim=2)  # repeated frames, as after an end, say nothing
        if bool(moved.any()) and bool((after[:, :, :-step] == up)[moved].all()):
            return step
    return 0


def _coloured(image: Float[Tensor, "*batch channel height width"]) -> Float[Tensor, "*batch height width 3"]:
    shown = image if image.shape[-3] == 3 else image.mean(dim=-3, keepdim=True)
    return shown.movedim(-3, -1).expand(*shown.shape[:-3], *shown.shape[-2:], 3)


def _tiled(images: list[Float[Tensor, "*batch height width colour"]]) -> Float[Tensor, "*batch tall wide colour"]:
    """Return images in rows, about as many rows as columns; unused places in the last row are black."""
    columns = math.ceil(math.sqrt(len(images)))
    images = images + [torch.zeros_like(images[0])] * (-len(images) % columns)
    rows = [torch.cat(images[i : i + columns], dim=-2) for i in range(0, len(images), columns)]
    return torch.cat(rows, dim=-3)
