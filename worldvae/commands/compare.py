"""`worldvae compare CONFIG`: what does each family of parts come to, in the same time on the same task?"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from worldvae.commands.compare_known import KNOWN
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
            metavar="CONFIG|digits|linear [KEY=VALUE]...",
            help="A task, as for train. Or digits: static priors. Or linear: a learnt model against the exact answer.",
            show_default=False,
        ),
    ] = None,
    families: Annotated[str, typer.Option(help="Names with commas, of families or static priors; default: all.")] = "",
    minutes: Annotated[float | None, typer.Option(help="Of training, for each family [10].")] = None,
    jobs: Annotated[int | None, typer.Option(help="Trainings side by side, sharing the cores [1].")] = None,
    episodes: Annotated[int | None, typer.Option(help="Held-out episodes that give the return [20].")] = None,
    seed: Annotated[int, typer.Option(help="Of everything.")] = 0,
    seeds: Annotated[int | None, typer.Option(help="How many, from --seed on [digits: 3, linear: 1].")] = None,
    out: Annotated[Path | None, typer.Option(help="Where everything is kept; default: runs/compare-CONFIG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Exchange one part and keep everything else: families on a task, priors of digits, or what theory knows."""
    if not arguments or "=" in arguments[0]:
        raise UserError("no config was given: `worldvae compare CONFIG` takes a task as for train, digits or linear.")
    config, overrides = arguments[0], arguments[1:]
    out = out or Path("runs") / f"compare-{Path(config).stem.replace(':', '-')}"
    names = [name.strip() for name in families.split(",") if name.strip()]
    if config in KNOWN:
        _refuse(config, {"--minutes": minutes, "--jobs": jobs, "--episodes": episodes, "KEY=VALUE": overrides or None})
        known, usual = KNOWN[config]
        known(out, names, range(seed, seed + (usual if seeds is None else seeds)), as_json)
        return
    _refuse("a task", {"--seeds": seeds})
    minutes, jobs = 10.0 if minutes is None else minutes, 1 if jobs is None else jobs
    episodes = 20 if episodes is None else episodes
    _check(minutes, jobs, episodes)
    names = _known(names)
    configure(find_or_make(config), [*overrides, f"seed={seed}"])  # the task's own mistakes, before any training
    found = compare_families(
        config,
        names,
        out,
        minutes=minutes,
        seed=seed,
        jobs=int(jobs),
        overrides=overrides,
        episodes=episodes,
        tell=lambda text: print(text, file=sys.stderr, flush=True),
    )
    head = {"config": " ".join([config, *overrides]), "seed": seed, "minutes": minutes, "jobs": jobs}
    numbers = out / "comparison.json"
    whole = head | {"episodes": episodes} | found.as_json() | {"file": str(numbers)}
    numbers.write_text(json.dumps(whole, allow_nan=False))
    print(json.dumps(whole) if as_json else f"{_table(found)}\nThe numbers are in {numbers}, the film in {found.film}")


def _refuse(what: str, options: Mapping[str, object]) -> None:
    """Refuse options that would be ignored."""
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{name} does not apply to `worldvae compare` of {what}: leave it out.")


def _check(minutes: float, jobs: int, episodes: int) -> None:
    if not minutes > 0:
        raise UserError(f"--minutes {minutes:g} is not a time to train: take a number above 0.")
    if episodes < 1:
        raise UserError(f"--episodes {episodes} is not a positive number of episodes.")
    cores = os.cpu_count() or 1
    if not 1 <= jobs <= cores:
        raise UserError(f"--jobs {jobs} must be at least 1, and at most the {cores} cores that are here.")


def _known(names: list[str]) -> list[str]:
    known = config_names("family")
    for name in names:
        if name not in known:
            raise UserError(f"--families: {name!r} is not a model family: {', '.join(known)}.{near_miss(name, known)}")
    return list(dict.fromkeys(names)) or known


def _table(found: Comparison) -> str:
    heads = "".join(f"{f'PSNR {h}':>9s}" for h in HORIZONS)
    named = f"{'family':22s}{'updates':>8s}{'return':>9s}{'95 % interval':>19s}"
    lines = [f"{named}{heads}{'nats/row':>11s}{'steps/s':>10s}  bound"]
    lines += [_line(row) for row in found.rows]
    copied = "".join(f"{value:9.1f}" for value in found.psnr_copy_last)
    lines.append(f"{'(uniform, copying)':22s}{'':8s}{found.random_mean:9.1f}{'':19s}{copied}")
    return "\n".join(lines)


def _line(row: FamilyRow) -> str:
    if row.failed is not None:
        return f"{row.family:22s} failed: {row.failed}"
    interval = f"[{row.ci95[0]:.1f}, {row.ci95[1]:.1f}]"
    psnr = "".join(f"{value:9.1f}" for value in row.psnr)
    return (
        f"{row.family:22s}{row.updates:8d}{row.ret:9.1f}{interval:>19s}{psnr}{row.bound:11.1f}"
        f"{row.steps_per_second:10.0f}  {row.bound_kind.replace('_', ' ')}"
    )
