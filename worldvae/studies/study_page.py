"""The page of the study of model kinds: one HTML file that needs no other."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from worldvae.errors import UserError
from worldvae.studies.study_rows import ROWS
from worldvae.studies.study_summary import Cell, failures_of, pick, task_tables
from worldvae.studies.svg import line_plot
from worldvae.system.text_file import replace_text

LARGEST_FILM = 400_000
"""Bytes of a film above which the page does without it."""

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.verdict { font-size: 1.25rem; font-weight: 600; border-left: 4px solid #1b6ca8; padding-left: .8rem; }
.verdict { white-space: pre-line; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem .7rem; border-bottom: 1px solid #8884; vertical-align: top; }
figure { display: inline-block; margin: .4rem; } figcaption { font-size: .85rem; }
svg { max-width: 100%; height: auto; }
"""

LOOSE = (
    (
        "JEPA leaves the geometry of its latents free.",
        "SIGReg pulls every projection of z towards N(0, 1), so that the whole batch is N(0, I): that is imposed as "
        "hard as by a KL. What is absent is a density per observation. VICReg holds up variances, and fixes no shape.",
    ),
    (
        "Diffusion has no encoder and no latents.",
        "A diffusion is a hierarchical VAE whose encoder is fixed: it adds noise, level by level, and its latents "
        "are as large as the data. Its loss is the evidence lower bound with other weights.",
    ),
    (
        "Diffusion is sharp where a VAE is blurred.",
        "One denoising step returns the mean of all futures, which is as blurred as the mean of a VAE. Sharpness comes "
        "from several steps, and so does the price; a VAE with a diffusion of detail on top is as sharp.",
    ),
    (
        "Energy-based models are hard to train.",
        "Contrastive training by Langevin chains is. An energy whose gradient is fitted by score matching trains as a "
        "denoiser does, for twice the operations, and gives up only the energies' common scale.",
    ),
)
"""Common sayings about these models, and what is loose about them."""


def write_page(path: Path, summary: Mapping[str, Any], cells: Sequence[Cell], folder: Path, head: str) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        summary: result of `summarise`.
        cells: the lines of cells, for their films.
        folder: that holds a folder for each cell.
        head: a sentence about budget, seeds and machine.

    Raises:
        UserError: If the file cannot be written.
    """
    try:
        replace_text(path, page(summary, cells, folder, head))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another folder with --out.") from error


def page(summary: Mapping[str, Any], cells: Sequence[Cell], folder: Path, head: str) -> str:
    """Return the text of the page: the verdict, the tasks, the rows, and where common sayings are loose."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Kinds of world models compared</title>',
        f"<style>{STYLE}</style></head><body>",
        f'<p class="verdict">{escape(str(summary["verdict"]))}</p>',
        f"<h1>Kinds of world models compared</h1><p>{escape(head)}</p>",
        f"<p>{summary['failed']} of {summary['cells']} cells failed. All rows of a task learn from the same recorded "
        "episodes and plan with the same planner from the same starts. Brackets are 95 % intervals over seeds and "
        "episodes; PSNR is in dB, of frames in 0..1 or of vectors in units of their spread.</p>",
    ]
    for task, table in task_tables(summary).items():
        parts += [f"<h2>{escape(task)}</h2>", _data(summary, task), _table(table), *_plots(summary, task)]
        parts.append(_films(cells, task, folder))
    failures = failures_of(summary)
    if failures:
        parts += ["<h2>What failed or was skipped</h2><ul>", *(f"<li>{escape(one)}</li>" for one in failures), "</ul>"]
    parts += ["<h2>What the rows are</h2>", _rows(summary), "<h2>Where common sayings are loose</h2>"]
    parts += [f"<p><b>“{escape(saying)}”</b> {escape(loose)}</p>" for saying, loose in LOOSE]
    return "\n".join([*parts, "</body></html>\n"])


def _data(summary: Mapping[str, Any], task: str) -> str:
    digest = str(summary["data"].get(task, "not recorded"))
    return f"<p>Episodes: <code>{escape(digest[:16])}</code></p>"


def _table(table: Sequence[Sequence[str]]) -> str:
    head, *body = table
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in body]
    return '<div class="scroll"><table>' + "".join(lines) + "</table></div>"


def _plots(summary: Mapping[str, Any], task: str) -> list[str]:
    """Return the plots of a task: errors by horizon, and returns by milliseconds."""
    entries = [one for one in summary["rows"] if one["task"] == task]
    points = [one["point"] for one in entries if one["point"]]
    last = next((point for point in reversed(points) if point.endswith("time")), None)
    shown = [one for one in entries if one["point"] in (None, last)]
    errors: dict[str, list[tuple[float, float]]] = {}
    returns: dict[str, list[tuple[float, float]]] = {}
    for one in shown:
        curve = pick(one, "measures", "predictions", "curve") or []
        errors[one["row"]] = [(float(k), value) for k, value in enumerate(curve, 1) if value is not None]
        timed = pick(one, "measures", "planning", "equal_ms") or []
        found = [(pick(each, "ms"), pick(each, "returns", "mean")) for each in timed]
        returns[one["row"]] = [(float(x), float(y)) for x, y in found if x is not None and y is not None]
    what = f"{task}, trained for {last}"
    return [
        line_plot(f"Predictions: {what}", "steps ahead", "PSNR in dB", errors),
        line_plot(f"Control: {what}", "milliseconds a decision", "return", returns, log_x=True),
    ]


def _films(cells: Sequence[Cell], task: str, folder: Path) -> str:
    """Return the films of a task side by side: of each row, that of its first seed and of its last point."""
    films: dict[str, str] = {}
    for one in cells:
        name = pick(one, "measures", "film", "film")
        if one["task"] != task or name is None or (one["row"] in films and str(one["point"]).endswith("flops")):
            continue
        path = folder / str(one["key"]).replace("/", "_") / str(name)
        if path.exists() and path.stat().st_size <= LARGEST_FILM:
            films[one["row"]] = base64.b64encode(path.read_bytes()).decode("ascii")
    return "".join(
        f'<figure><img alt="dreams of {escape(row)}" src="data:image/gif;base64,{data}">'
        f"<figcaption>{escape(row)}</figcaption></figure>"
        for row, data in films.items()
    )


def _rows(summary: Mapping[str, Any]) -> str:
    """Return what each row is, and the settings that tuning chose."""
    named = {one["row"] for one in summary["rows"]} | {key.split("/")[1] for key in summary["skipped"]}
    table = [["row", "inference", "geometry", "in place of the integral", "settings", "size"]]
    for name, row in ROWS.items():
        if name not in named:
            continue
        tuned = {key.split("/")[0]: one for key, one in summary["tuning"].items() if key.split("/")[1] == name}
        chosen = {
            task: " ".join(one["settings"]) or "its own" for task, one in tuned.items() if one["settings"] is not None
        }
        sizes = {task: one["size"] for task, one in tuned.items() if one["size"]}
        label = f"{name} (a control)" if row.control else name
        settings = "; ".join([" ".join(row.overrides), *(f"{task}: {words}" for task, words in chosen.items())])
        size = "; ".join(f"{task}: {words}" for task, words in sizes.items())
        table.append([label, row.inference, row.geometry, row.integral, settings, size])
    return _table(table)
