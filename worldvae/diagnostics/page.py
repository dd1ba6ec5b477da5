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
    figure.suptitle(f"{title}\nfeatures: {found.features.words}")
    axes = figure.subplots(2, 4).flat
    why = found.left_out
    verdict = "" if found.collapse is None else found.collapse.verdict
    per_unit = why.get("kl_per_unit", "the posterior or the prior does not factorise")
    _bars(axes[0], found.kl_per_unit, "KL of each unit of z (nats per row)", verdict, per_unit)
    _surprise(axes[1], found)
    _holes(axes[2], found)
    if found.calibration is None:
        _absent(axes[3], "truth inside the interval", why["calibration"])
        _absent(axes[4], "predictions", why["calibration"])
    else:
        _predictions(axes[3], axes[4], found.calibration)
    title = "R\u00b2 of the environment's vector,\nread linearly off the features"
    _bars(axes[5], found.probe, title, "", "the environment shows no vector")
    if found.probe is not None:
        axes[5].set_ylim(max(-1.0, axes[5].get_ylim()[0]), 1.02)  # R^2 of an almost constant entry is hugely negative
    _gaps(axes[6], found)
    _ways(axes[7], found)
    figure.savefig(path, dpi=100)


def _surprise(axis: Any, found: Diagnosis) -> None:
    title = "surprise: KL at every row of an episode"
    if found.kl_over_time is None or found.surprise is None:
        _absent(axis, title, found.left_out["surprise"])
        return
    axis.plot(found.kl_over_time)
    axis.set(title=title, xlabel="row", ylabel="nats")
    for episode in found.surprise[:8]:
        axis.plot(episode, color="grey", alpha=0.25, linewidth=0.7)


def _holes(axis: Any, found: Diagnosis) -> None:
    title = "inferred against imagined z (0: alike)"
    if found.hole is None or found.conditional_hole is None:
        _absent(axis, title, found.left_out["hole"])
        return
    holes = {"MMD\u00b2": found.hole["mmd"], "log-ratio": found.hole["log_ratio"], "given h": found.conditional_hole}
    bars = axis.bar(list(holes), list(holes.values()))
    axis.bar_label(bars, fmt="%.3f")
    axis.margins(y=0.15)
    axis.set(title=title, ylabel="MMD\u00b2, or nats")


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


def _bars(axis: Any, values: list[float] | None, title: str, note: str, why_none: str) -> None:
    if values is None:
        _absent(axis, title, why_none)
        return
    axis.set(title=title)
    axis.bar(range(len(values)), values)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.text(0.98, 0.92, note, ha="right", transform=axis.transAxes)


def _absent(axis: Any, title: str, why: str) -> None:
    axis.set(title=title)
    axis.text(0.5, 0.5, fill(f"n/a: {why}", 40), ha="center", va="center", transform=axis.transAxes)
    axis.set_axis_off()
