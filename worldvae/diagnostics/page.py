"""A page of plots of a diagnosis."""

from importlib.util import find_spec
from pathlib import Path
from textwrap import fill
from typing import Any

from worldvae.diagnostics.calibration import Calibration
from worldvae.diagnostics.diagnosis import Diagnosis
from worldvae.errors import UserError


def check_plotting() -> None:
    """Raise UserError if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise UserError("a page of plots needs matplotlib: pip install 'worldvae[plot]'.")


def draw_page(found: Diagnosis, path: Path, title: str) -> None:
    """Draw a diagnosis to an image file (.png, .pdf, .svg).

    Raises:
        UserError: If matplotlib is not installed.
    """
    check_plotting()
    from matplotlib.figure import Figure  # slow to import, and optional

    figure = Figure(figsize=(17, 7), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 4).flat
    _bars(axes[0], found.kl_per_unit, "KL of each unit of z (nats per row)", f"{found.collapse.verdict}")
    axes[1].plot(found.kl_over_time)
    axes[1].set(title="surprise: KL at every row of an episode", xlabel="row", ylabel="nats")
    for episode in found.surprise[:8]:
        axes[1].plot(episode, color="grey", alpha=0.25, linewidth=0.7)
    holes = {"MMD\u00b2": found.hole["mmd"], "log-ratio": found.hole["log_ratio"], "given h": found.conditional_hole}
    bars = axes[2].bar(list(holes), list(holes.values()))
    axes[2].bar_label(bars, fmt="%.3f")
    axes[2].margins(y=0.15)
    axes[2].set(title="inferred against imagined z (0: alike)", ylabel="MMD\u00b2, or nats")
    if found.calibration is None:
        _bars(axes[3], None, "truth inside the interval", "")
        _bars(axes[4], None, "predictions", "")
    else:
        _predictions(axes[3], axes[4], found.calibration)
    _bars(axes[5], found.probe, "R\u00b2 of the environment's vector,\nread linearly off h and z", "")
    axes[5].set_ylim(bottom=max(-1.0, axes[5].get_ylim()[0]))  # R^2 of an almost constant entry is hugely negative
    _gaps(axes[6], found)
    _ways(axes[7], found)
    figure.savefig(path, dpi=100)


def _predictions(left: Any, right: Any, found: Calibration) -> None:
    horizon = range(1, len(found.coverage) + 1)
    left.plot(horizon, found.coverage.tolist(), label="covered")
    left.axhline(found.level, color="grey", linestyle=":", label="as it should be")
    left.set(title=f"truth inside the {found.level:.0%} interval", xlabel="horizon", ylim=(0, 1.02))
    left.legend()
    for name, values in (("spread", found.spread), ("error", found.skill)):
        right.plot(horizon, values.tolist(), label=name)
    right.plot(horizon, found.crps.tolist(), label="CRPS", linestyle="--")
    right.set(title="predictions: spread should equal error", xlabel="horizon")
    right.legend()


def _gaps(axis: Any, found: Diagnosis) -> None:
    title = "what the bound lacks (estimates)"
    if found.gaps is None:
        _absent(axis, title, found.left_out["gaps"])
        return
    names = ("amortisation", "conditioning", "approximation")
    bars = axis.bar(names, [getattr(found.gaps, name) for name in names])
    axis.bar_label(bars, fmt="%.3f")
    axis.margins(y=0.15)
    axis.set(title=title, ylabel="nats per row")


def _ways(axis: Any, found: Diagnosis) -> None:
    title = "one row inferred: bound against time"
    if found.inference is None:
        _absent(axis, title, found.left_out["inference"])
        return
    for way in found.inference:
        axis.scatter(way.milliseconds, -way.gap, label=way.name.split(";")[0])
    axis.axhline(0, color="grey", linestyle=":")
    axis.set(title=title, xlabel="milliseconds per row", xscale="log", ylabel="bound - best log p (nats)")
    axis.legend(fontsize="small")


def _bars(axis: Any, values: list[float] | None, title: str, note: str) -> None:
    if values is None:
        _absent(axis, title, "not defined here")
        return
    axis.set(title=title)
    axis.bar(range(len(values)), values)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.text(0.98, 0.92, note, ha="right", transform=axis.transAxes)


def _absent(axis: Any, title: str, why: str) -> None:
    axis.set(title=title)
    axis.text(0.5, 0.5, fill(why, 40), ha="center", va="center", transform=axis.transAxes)
    axis.set_axis_off()
