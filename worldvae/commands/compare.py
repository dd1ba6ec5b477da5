"""`worldvae compare CONFIG`: what does each family of parts come to, in the same time on the same task?"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from worldvae.commands.train import find_or_make
from worldvae.comparison import Comparison, FamilyRow, compare_families
from worldvae.comparison.families import HORIZONS
from worldvae.config import config_names
from worldvae.errors import UserError, near_miss
from worldvae.run import configure


def compare(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]...", help="As for train: the task, the same for all.", show_default=False
        ),
    ] = None,
    families: Annotated[str, typer.Option(help="Names of families, with commas; default: all.")] = "",
    minutes: Annotated[float, typer.Option(help="Of training, for each family.")] = 10.0,
    jobs: Annotated[int, typer.Option(help="Trainings side by side, each with its share of the cores.")] = 1,
    episodes: Annotated[int, typer.Option(help="Held-out episodes that give the return.")] = 20,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Where the runs are kept; default: runs/compare-CONFIG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Train every family of parts on a task for the same time, and hold them against one another."""
    if not arguments or "=" in arguments[0]:
        raise UserError("no config was given: `worldvae compare CONFIG` takes what `worldvae train` takes.")
    config, overrides = arguments[0], arguments[1:]
    _check(minutes, jobs, episodes)
    names = _names(families)
    source = find_or_make(config)
    configure(source, [*overrides, f"seed={seed}"])  # what is wrong with the task itself is said before any training
    out = out or Path("runs") / f"compare-{Path(config).stem.replace(':', '-')}"
    found = compare_families(
        config,
        names,
        out,
        minutes=minutes,
        seed=seed,
        jobs=jobs,
        overrides=overrides,
        episodes=episodes,
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )
    head = {"config": " ".join([config, *overrides]), "seed": seed, "minutes": minutes, "jobs": jobs}
    numbers = out / "comparison.json"
    whole = head | {"episodes": episodes} | found.as_json()
    numbers.write_text(json.dumps(whole, allow_nan=False))
    print(json.dumps(whole) if as_json else f"{_table(found)}\nThe numbers are in {numbers}, the film in {found.film}")


def _check(minutes: float, jobs: int, episodes: int) -> None:
    if not minutes > 0:
        raise UserError(f"--minutes {minutes:g} is not a time to train: take a number above 0.")
    if episodes < 1:
        raise UserError(f"--episodes {episodes} is not a positive number of episodes.")
    cores = os.cpu_count() or 1
    if not 1 <= jobs <= cores:
        raise UserError(f"--jobs {jobs} must be at least 1, and at most the {cores} cores that are here.")


def _names(given: str) -> list[str]:
    known = config_names("family")
    names = [name.strip() for name in given.split(",") if name.strip()] or known
    for name in names:
        if name not in known:
            raise UserError(f"--families: {name!r} is not a model family: {', '.join(known)}.{near_miss(name, known)}")
    return list(dict.fromkeys(names))


def _table(found: Comparison) -> str:
    heads = "".join(f"{f'PSNR {h}':>9s}" for h in HORIZONS)
    lines = [
        f"{'family':22s}{'updates':>8s}{'return':>9s}{'95 % interval':>19s}{heads}{'nats/row':>11s}{'steps/s':>10s}"
    ]
    lines += [_line(row) for row in found.rows]
    copied = "".join(f"{value:9.1f}" for value in found.psnr_copy_last)
    lines.append(f"{'(copying, uniform)':22s}{'':8s}{found.random_mean:9.1f}{'':19s}{copied}")
    return "\n".join(lines)


def _line(row: FamilyRow) -> str:
    if row.failed is not None:
        return f"{row.family:22s} failed: {row.failed}"
    interval = f"[{row.ci95[0]:.1f}, {row.ci95[1]:.1f}]"
    psnr = "".join(f"{value:9.1f}" for value in row.psnr)
    return (
        f"{row.family:22s}{row.updates:8d}{row.ret:9.1f}{interval:>19s}{psnr}{row.bound:11.1f}"
        f"{row.steps_per_second:10.0f}  {row.bound_kind}"
    )
