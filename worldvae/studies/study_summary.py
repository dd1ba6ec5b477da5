"""Tables of the study of model kinds: means over seeds, intervals over seeds and episodes, and failures counted."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from worldvae.studies.bootstrap import two_level_interval
from worldvae.studies.verdict import verdict
from worldvae.system.json_file import plain

RETURNS = "returns"
"""Key of lists with a number for each episode; a summary holds their mean and interval."""

LARGEST = 300_000
"""Bytes of a summary as JSON."""

DROPPED = ("curve", "tried", "training")
"""What a summary that is too long does without; the file of cells has it."""

Cell = Mapping[str, Any]


def summarise(lines: Sequence[Cell], cells: Sequence[Cell], skipped: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the summary: verdict, data, sizes and settings of rows, and an entry per task, row and point.

    Args:
        lines: all lines of the file of cells.
        cells: those of cells, in the order of the tables.
        skipped: rows that tasks do without, as "task/row", and why.
    """
    rows = []
    for _, group in groupby(cells, key=lambda one: (one["task"], one["row"], one["point"])):
        rows.append(_entry(list(group)))
    return {
        "verdict": verdict(cells),
        "data": {one["task"]: one.get("digest") or one["failed"] for one in lines if one["work"] == "data"},
        "minutes": _short(sum(one["minutes"] for one in lines)),
        "failed": sum(one["failed"] is not None for one in cells),
        "cells": len(cells),
        "skipped": dict(skipped or {}),
        "tuning": {
            f"{one['task']}/{one['row']}": {
                "settings": one.get("settings"),
                "tried": one.get("tried"),
                "size": (one.get("size") or {}).get("sentence"),
            }
            for one in lines
            if one["work"] == "tuning"
        },
        "rows": rows,
    }


def within(summary: Mapping[str, Any], limit: int = LARGEST) -> dict[str, Any]:
    """Return the summary in at most `limit` bytes of JSON; where it is longer, `DROPPED` go, one after the other."""
    found = dict(summary)
    for name in DROPPED:
        if len(json.dumps(plain(found))) <= limit:
            break
        found = _without(found, name) | {"dropped": [*found.get("dropped", []), name]}
    return found


def _without(tree: Any, name: str) -> Any:
    if isinstance(tree, Mapping):
        return {key: _without(value, name) for key, value in tree.items() if key != name}
    return [_without(value, name) for value in tree] if isinstance(tree, list) else tree


def _entry(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the entry of one task, row and point, from its seeds."""
    first = cells[0]
    sound = [one for one in cells if one["failed"] is None]
    return {
        "task": first["task"],
        "row": first["row"],
        "point": first["point"],
        "seeds": len(cells),
        "failed": len(cells) - len(sound),
        "reason": next((one["failed"] for one in cells if one["failed"] is not None), None),
        "training": average([one["training"] for one in sound if one.get("training")]),
        "measures": _blocks([one["measures"] for one in sound]),
    }


def _blocks(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return every block averaged over the seeds that have it, with the number of seeds where it failed."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for one in measured for name in one):
        blocks = [one[name] for one in measured if name in one]
        good = [block for block in blocks if "failed" not in block]
        bad = [block["failed"] for block in blocks if "failed" in block]
        found[name] = average(good) or {}
        if bad:
            found[name] |= {"seeds_failed": len(bad), "failed": bad[0]}
    return found


def average(values: Sequence[Any]) -> Any:
    """Return the mean of equal trees of numbers, by element; of words the first; of `RETURNS` mean and interval.

    Numbers have five digits. None and what is not finite do not count; where nothing counts the mean is None.
    """
    values = [value for value in values if value is not None]
    if not values:
        return None
    first = values[0]
    if isinstance(first, Mapping):
        names = dict.fromkeys(name for one in values for name in one)
        return {name: _average_of(name, [one.get(name) for one in values]) for name in names}
    if isinstance(first, list | tuple):
        lists = [one for one in values if isinstance(one, list | tuple)]
        longest = max(len(one) for one in lists)
        return [average([one[i] for one in lists if i < len(one)]) for i in range(longest)]
    if isinstance(first, str | bool):
        return first
    if isinstance(first, int) and all(one == first for one in values):
        return first
    finite = [float(one) for one in values if math.isfinite(one)]
    return _short(sum(finite) / len(finite)) if finite else None


def _average_of(name: str, values: Sequence[Any]) -> Any:
    if name != RETURNS:
        return average(values)
    seeds = [list(map(float, one)) for one in values if one]
    if not seeds:
        return None
    mean = sum(sum(one) / len(one) for one in seeds) / len(seeds)
    low, high = two_level_interval(seeds)
    episodes = sum(len(one) for one in seeds)
    return {"mean": _short(mean), "ci95": [_short(low), _short(high)], "episodes": episodes}


def _short(value: float) -> float:
    return float(f"{value:.5g}")


Column = tuple[str, Callable[[Mapping[str, Any]], str]]


def pick(entry: Any, *path: str | int) -> Any:
    """Return what lies at a path in nested mappings and lists, None where there is nothing."""
    for step in path:
        if isinstance(entry, Mapping):
            entry = entry.get(str(step))
        elif isinstance(entry, list) and isinstance(step, int) and -len(entry) <= step < len(entry):
            entry = entry[step]
        else:
            return None
    return entry


def number(value: Any, spec: str = ".1f") -> str:
    """Return a number as text, "–" where there is none."""
    return "–" if value is None else format(value, spec)


def _return(entry: Mapping[str, Any]) -> str:
    block = pick(entry, "measures", "planning") or {}
    played = pick(block, "equal_candidates", RETURNS)
    if played is None:
        return "failed" if "failed" in block else "–"
    return f"{played['mean']:.1f} [{played['ci95'][0]:.1f}, {played['ci95'][1]:.1f}]"


def _microseconds(entry: Mapping[str, Any]) -> float | None:
    """Return the microseconds of an imagined step with the settings with which the row plans."""
    speed = pick(entry, "measures", "speed") or {}
    rate = pick(speed.get("planner") or speed.get("model"), "steps_per_second")
    return 1e6 / rate if rate else None


def _error(entry: Mapping[str, Any], horizon: int, what: str = "psnr") -> str:
    horizons = pick(entry, "measures", "predictions", "horizons") or []
    if horizon not in horizons:
        return "failed" if "failed" in (pick(entry, "measures", "predictions") or {}) else "–"
    return number(pick(entry, "measures", "predictions", what, horizons.index(horizon)))


COLUMNS: tuple[Column, ...] = (
    ("row", lambda one: str(one["row"])),
    ("trained", lambda one: str(one["point"] or "–")),
    ("failed", lambda one: f"{one['failed']} of {one['seeds']}"),
    ("updates", lambda one: number(pick(one, "training", "updates"), ",.0f")),
    ("parameters", lambda one: number(pick(one, "training", "parameters"), ",.0f")),
    ("reward R² at 10", lambda one: number(pick(one, "measures", "predictions", "reward_r2", "at 10"), ".2f")),
    ("PSNR at 1", lambda one: _error(one, 1)),
    ("at 10", lambda one: _error(one, 10)),
    ("moving, at 1", lambda one: _error(one, 1, "moving_psnr")),
    ("at 10", lambda one: _error(one, 10, "moving_psnr")),
    ("µs a step", lambda one: number(_microseconds(one), ",.1f")),
    ("return", _return),
)
"""The columns of the tables on the page and in the terminal."""


def task_tables(summary: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Return the table of each task as lists of cells; the first line has the headers."""
    found: dict[str, list[list[str]]] = {}
    for entry in summary["rows"]:
        table = found.setdefault(entry["task"], [[header for header, _ in COLUMNS]])
        table.append([show(entry) for _, show in COLUMNS])
    return found


def text_tables(summary: Mapping[str, Any]) -> str:
    """Return the verdict, the tables and the reasons of failures as text for a terminal."""
    lines = [str(summary["verdict"])]
    for task, table in task_tables(summary).items():
        widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
        lines += ["", task]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
        ]
    failures = failures_of(summary)
    return "\n".join([*lines, *(["", *failures] if failures else [])])


def failures_of(summary: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each row that was skipped, each failed cell and each failed block."""
    said = [f"{name}: skipped: {reason}" for name, reason in summary["skipped"].items()]
    for one in summary["rows"]:
        where = "/".join(str(part) for part in (one["task"], one["row"], one["point"]) if part)
        if one["reason"] is not None:
            said.append(f"{where}: {one['failed']} of {one['seeds']} failed: {one['reason']}")
        for name, block in (one["measures"] or {}).items():
            if "failed" in block:
                said.append(f"{where}: {name} failed: {block['failed']}")
    return said
