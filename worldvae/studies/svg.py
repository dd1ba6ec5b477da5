"""Line plots as SVG text, for pages without scripts and without files beside them."""

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#c77d0a", "#4c566a", "#008b8b", "#a0522d")
DASHES = ("", "6 3", "2 3")
"""The first lines are solid, each in a colour of its own; the next are dashed in the same colours, then dotted."""

WIDTH, HEIGHT = 460, 300
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 30, 42
ROW = 15
"""Height of a line of the legend, which stands to the right of the plot."""


def line_plot(
    title: str,
    x_label: str,
    y_label: str,
    lines: Mapping[str, Points],
    *,
    log_x: bool = False,
) -> str:
    """Return a plot of lines through points, with a legend beside it; points that are not finite are left out.

    Args:
        title: above the plot.
        x_label: below it.
        y_label: beside it.
        lines: points (x, y) by label.
        log_x: whether the horizontal axis is logarithmic; points with x <= 0 are then left out.
    """
    kept = {name: _finite(points, log_x) for name, points in lines.items()}
    kept = {name: points for name, points in kept.items() if points}
    gutter = 14 + 7 * max((len(name) for name in kept), default=0) + 24
    height = max(HEIGHT, TOP + ROW * len(kept) + 10)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + gutter} {height}" '
        f'width="{WIDTH + gutter}" height="{height}" role="img" font-family="sans-serif" font-size="11" '
        f'fill="currentColor"><title>{escape(title)}</title>'
    )
    parts = [head, f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}</text>']
    if not kept:
        parts.append(f'<text x="{LEFT}" y="60">nothing was measured</text></svg>')
        return "".join(parts)
    xs = [math.log10(x) if log_x else x for points in kept.values() for x, _ in points]
    ys = [y for points in kept.values() for _, y in points]
    x_axis, y_axis = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT), _Axis(min(ys), max(ys), HEIGHT - BOTTOM, TOP)
    parts += _frame(x_axis, y_axis, x_label, y_label, log_x)
    for i, (name, points) in enumerate(kept.items()):
        parts.append(_line(i, name, [(x_axis(math.log10(x) if log_x else x), y_axis(y)) for x, y in points]))
    return "".join([*parts, "</svg>"])


def _finite(points: Points, positive: bool) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y) and (x > 0 or not positive)]


class _Axis:
    """Maps numbers to coordinates, with round numbers as marks."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        room = 0.04 * (high - low) or abs(low) * 0.05 or 1.0
        self.low, self.high, self.start, self.stop = low - room, high + room, start, stop

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)

    def marks(self) -> list[float]:
        """Return three to eight round numbers between the ends."""
        size = 10 ** math.floor(math.log10(self.high - self.low))
        step = next(step for part in (0.1, 0.2, 0.5, 1.0, 2.0) if (self.high - self.low) / (step := part * size) <= 8)
        return [step * i for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _frame(x_axis: _Axis, y_axis: _Axis, x_label: str, y_label: str, log_x: bool) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [
        f'<rect x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}" fill="none" stroke="#8888"/>',
        f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>',
        f'<text transform="translate(12 {(TOP + bottom) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]
    for mark in x_axis.marks():
        at, word = x_axis(mark), f"{10**mark:.3g}" if log_x else f"{mark:.6g}"
        parts.append(f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{word}</text>')
    for mark in y_axis.marks():
        at = y_axis(mark)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{right}" stroke="#8883"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{mark:.6g}</text>')
    return parts


def _line(i: int, name: str, points: Points) -> str:
    colour, dash = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
    style = f'stroke="{colour}" stroke-width="1.8" fill="none"' + (f' stroke-dasharray="{dash}"' if dash else "")
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.2" fill="{colour}"/>' for x, y in points)
    y = TOP + ROW * i + 8
    key = f'<path d="M{WIDTH + 6} {y}h20" {style}/><text x="{WIDTH + 31}" y="{y + 4}">{escape(name)}</text>'
    return f'<g><title>{escape(name)}</title><path d="{path}" {style}/>{dots}{key}</g>'
