"""A picture of small pictures: one labelled row for each of several models."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_SCALE, _GAP, _FONT = 4, 6, 13
_PAPER, _INK, _FAILED = (24, 24, 28), (232, 232, 236), (232, 72, 72)


def draw_grid(path: Path, rows: Mapping[str, Float[Tensor, "number height width"] | None]) -> Path:
    """Write rows of pictures with values in 0..1, black on white, to an image file; a row of None is shown as failed.

    Args:
        path: .png, or another format of Pillow.
        rows: labels of the rows, and their pictures, all of one size.

    Raises:
        ValueError: If no row has pictures.
    """
    shown = [pictures for pictures in rows.values() if pictures is not None]
    if not shown:
        raise ValueError("a grid needs at least one row of pictures")
    number = max(len(pictures) for pictures in shown)
    height, width = (_SCALE * size for size in shown[0].shape[1:])
    font = ImageFont.load_default(size=_FONT)
    gutter = max(int(font.getlength(label)) for label in rows) + 2 * _GAP
    size = gutter + number * (width + _GAP), _GAP + len(rows) * (height + _GAP)
    canvas = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(canvas)
    for i, (label, pictures) in enumerate(rows.items()):
        top = _GAP + i * (height + _GAP)
        pen.text((_GAP, top + (height - _FONT) // 2), label, fill=_INK, font=font)
        if pictures is None:
            pen.text((gutter, top + (height - _FONT) // 2), "failed", fill=_FAILED, font=font)
            continue
        for k, picture in enumerate(pictures):
            bytes_ = (255 * (1 - picture.clamp(0, 1))).round().to(torch.uint8).cpu().numpy()
            tile = Image.fromarray(bytes_).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(tile, (gutter + k * (width + _GAP), top))
    canvas.save(path, optimize=True)
    return path
