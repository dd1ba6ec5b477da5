"""`worldvae compare CONFIG`: what does each family of parts come to, in the same time on the same task?"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from worldvae.commands.compare_known import KNOWN
from worldvae.commands.train import INTERRUPTED
from worldvae.config import config_names
from worldvae.envs import make_from
from worldvae.errors import UserError, near_miss
from worldvae.runs.settings import RunConfig, configure, find_or_make, pick_device
from worldvae.studies import Comparison, FamilyRow, Trainings, compare_families
from worldvae.studies.families import HORIZONS
from worldvae.system.cores import usable_cores
from worldvae.system.json_file import write_json
from worldvae.training.progress import say

OWN = ("family=", "seed=", "train.eval_episodes=")
"""Settings that a comparison makes itself."""


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
    _refuse("a task", {"--seeds": seeds} | {name: name for name in OWN if any(o.startswith(name) for o in overrides)})
    trainings = Trainings(config, out, 10.0 if minutes is None else minutes, seed, jobs or 1, overrides)
    _check(trainings, jobs, episodes)
    names = _known(names)
    resolved = _resolved(trainings)
    try:
        found = compare_families(trainings, resolved, names, 20 if episodes is None else episodes, say)
    except KeyboardInterrupt:
        say(f"Interrupted, and saved in {out}: the same command goes on.")
        raise typer.Exit(INTERRUPTED) from None
    numbers = out / "comparison.json"
    head = {
        "config": " ".join([config, *overrides]),
        "seed": seed,
        "minutes": trainings.minutes,
        "jobs": trainings.jobs,
    }
    whole = head | found.as_json() | {"file": str(numbers)}
    write_json(numbers, whole)
    film = f", the film in {found.film}" if found.film else ""
    print(json.dumps(whole) if as_json else f"{_table(found)}\nThe numbers are in {numbers}{film}")
    if all(row.failed is not None for row in found.rows):
        raise UserError(f"every family failed; {found.rows[0].family}: {found.rows[0].failed}")


def _refuse(what: str, options: Mapping[str, object]) -> None:
    """Refuse options that would be ignored."""
    for name, value in options.items():
        if value is not None:
            raise UserError(f"{name} does not apply to `worldvae compare` of {what}: leave it out.")


def _check(trainings: Trainings, jobs: int | None, episodes: int | None) -> None:
    if not 0 < trainings.minutes < math.inf:
        raise UserError(f"--minutes {trainings.minutes:g} is not a time to train: take a number above 0.")
    if episodes is not None and episodes < 1:
        raise UserError(f"--episodes {episodes} is not a positive number of episodes.")
    if jobs is not None and not 1 <= jobs <= usable_cores():
        raise UserError(f"--jobs {jobs} must be at least 1, and at most the {usable_cores()} cores that are here.")


def _resolved(trainings: Trainings) -> RunConfig:
    """Return the config of the task; what is wrong with the task itself is said before any training."""
    resolved = configure(find_or_make(trainings.config), [*trainings.overrides, f"seed={trainings.seed}"])
    pick_device(resolved.device)
    make_from(resolved.env).close()
    return resolved


def _known(names: list[str]) -> list[str]:
    known = config_names("family")
    for name in names:
        if name not in known:
            raise UserError(f"--families: {name!r} is not a model family: {', '.join(known)}.{near_miss(name, known)}")
    return list(dict.fromkeys(names)) or known


def _table(found: Comparison) -> str:
    heads = "".join(f"{f'PSNR {h}':>9s}" for h in HORIZONS)
    named = f"{'family':22s}{'minutes':>8s}{'updates':>8s}{'done':>6s}{'return':>9s}{'95 % interval':>19s}"
    lines = [f"{named}{heads}{'nats/row':>11s}{'steps/s':>10s}  bound"]
    lines += [_line(row) for row in found.rows]
    copied = "".join(f"{value:9.1f}" for value in found.psnr_copy_last)
    lines.append(f"{'(uniform, copying)':22s}{'':22s}{found.random_mean:9.1f}{'':19s}{copied}")
    return "\n".join(lines)


def _line(row: FamilyRow) -> str:
    if row.failed is not None:
        return f"{row.family:22s} failed: {row.failed}"
    interval = f"[{row.ci95[0]:.1f}, {row.ci95[1]:.1f}]"
    psnr = "".join(f"{value:9.1f}" for value in row.psnr)
    kind = str(row.bound_kind).replace("_", " ") + (f", frames={row.frames}" if row.frames else "")
    return (
        f"{row.family:22s}{row.minutes:8.1f}{row.updates:8d}{row.share:6.0%}{row.ret:9.1f}{interval:>19s}{psnr}"
        f"{row.bound:11.1f}{row.steps_per_second:10.0f}  {kind}"
    )
