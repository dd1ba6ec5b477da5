"""Draws vectors over time as curves, for worlds without frames."""

import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_STEP, _STRIP, _MARGIN, _MAX_CURVES = 8, 56, 90, 8
_TRUE, _SEEN, _DREAM = (110, 110, 110), (30, 150, 60), (210, 40, 40)


def curves(
    truth: Float[Tensor, "time entry"], dream: Float[Tensor, "time entry"], context: int
) -> UInt8[Tensor, "time height width 3"]:
    """Return a film in which the curves of the first entries grow: truth in grey, the model in green, then red.

    Args:
        truth: standardised vectors.
        dream: what the model reconstructs (green) and dreams (red).
        context: rows the model sees.
    """
    time, entries = truth.shape[0], min(truth.shape[1], _MAX_CURVES)
    both = torch.cat([truth, dream])[:, :entries]
    low, high = both.min(dim=0).values, both.max(dim=0).values
    size = (high - low).clamp(min=1e-3)

    def points(values: Tensor, entry: int, start: int, stop: int) -> list[tuple[float, float]]:
        unit = (values[start:stop, entry] - low[entry]) / size[entry]
        top = entry * _STRIP + 6
        return [
            (float(_MARGIN + (start + k) * _STEP), top + (_STRIP - 12) * (1 - float(u))) for k, u in enumerate(unit)
        ]

    frames = []
    font = ImageFont.load_default(size=12)
    for t in range(1, time + 1):
        canvas = Image.new("RGB", (_MARGIN + time * _STEP, entries * _STRIP), "white")
        draw = ImageDraw.Draw(canvas)
        for entry in range(entries):
            draw.text((6, entry * _STRIP + _STRIP // 2 - 8), f"entry {entry}", fill="black", font=font)
            draw.line(points(truth, entry, 0, t), fill=_TRUE, width=3)
            draw.line(points(dream, entry, 0, min(t, context)), fill=_SEEN, width=2)
            if t > context:
                draw.line(points(dream, entry, context - 1, t), fill=_DREAM, width=2)
        data = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
        frames.append(data.reshape(canvas.height, canvas.width, 3))
    return torch.stack(frames)
