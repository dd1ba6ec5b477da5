"""`worldvae study online | families | digits | linear`: exchange one part, or the model, and keep everything else."""

import json
import math
from pathlib import Path
from typing import Annotated

import typer

from worldvae.commands.record import Recorder, RecordFile
from worldvae.commands.study_families import open_study, refuse_old_form, study_families
from worldvae.commands.study_known import study_digits, study_linear
from worldvae.commands.train import EXIT_INTERRUPTED
from worldvae.config import config_names
from worldvae.envs import make_from
from worldvae.errors import UserError, near_miss
from worldvae.runs.settings import RunConfig, configure, find_or_make, pick_device
from worldvae.studies import Comparison, FamilyRow, Trainings, compare_families
from worldvae.studies.families import HORIZONS
from worldvae.system.cores import usable_cores
from worldvae.system.json_file import write_json
from worldvae.training.progress import say

STUDY_SETTINGS = ("family=", "seed=", "train.eval_episodes=")
"""Settings that the study itself makes, and refuses from the user."""


study = typer.Typer(help="Exchange one part and keep everything else.")

Seed = Annotated[int, typer.Option(help="Of everything; the first, where there are several.")]
Out = Annotated[Path | None, typer.Option(help="Where everything is kept; default: runs/study-NAME.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")]


@study.command("digits")
def digits(
    priors: Annotated[str, typer.Option(help="Names with commas, of static priors; default: all.")] = "",
    seeds: Annotated[int, typer.Option(help="How many, from --seed on.")] = 3,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    record: RecordFile = None,
) -> None:
    """Compare the priors of one static VAE on scikit-learn's digits."""
    recorder = Recorder(record)
    folder, names = out or Path("runs/study-digits"), _names(priors)
    recorder.keep(study_digits(folder, names, range(seed, seed + seeds), as_json))


@study.command("linear")
def linear(
    seeds: Annotated[int, typer.Option(help="How many, from --seed on.")] = 1,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    record: RecordFile = None,
) -> None:
    """Compare models of linear-Gaussian worlds with the exact likelihood, and their planners with the optimum."""
    recorder = Recorder(record)
    recorder.keep(study_linear(out or Path("runs/study-linear"), range(seed, seed + seeds), as_json))


@study.command("families", context_settings={"ignore_unknown_options": True})
def families(
    arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    budget: Annotated[str, typer.Option(help="small (pendulum and linear, 90 minutes on 2 cores) or medium.")] = "",
    tasks: Annotated[str, typer.Option(help="Names with commas; default: all of the budget.")] = "",
    rows: Annotated[str, typer.Option(help="Names with commas; default: all.")] = "",
    seeds: Annotated[int, typer.Option(help="How many, from --seed on.")] = 1,
    jobs: Annotated[int, typer.Option(help="Cells side by side, sharing the cores; 0: one for each core.")] = 0,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    record: RecordFile = None,
) -> None:
    """Train every kind of model on the same recorded episodes, plan with each, and write a page about them."""
    refuse_old_form(arguments or [])
    if not budget:
        raise UserError("no budget was given: `worldvae study families` takes --budget small or --budget medium.")
    chosen = tuple(_names(tasks)), tuple(_names(rows))
    asked = open_study(budget, *chosen, seeds, seed, jobs, out or Path("runs/study-families"))
    recorder = Recorder(record)
    recorder.keep(study_families(asked, as_json))


@study.command("online")
def online(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG [KEY=VALUE]...", help="A task, as for train.", show_default=False),
    ] = None,
    only: Annotated[str, typer.Option("--families", help="Names with commas; default: all.")] = "",
    minutes: Annotated[float, typer.Option(help="Of training, for each family.")] = 10.0,
    jobs: Annotated[int, typer.Option(help="Trainings side by side, sharing the cores.")] = 1,
    episodes: Annotated[int, typer.Option(help="Held-out episodes that give the return.")] = 20,
    seed: Seed = 0,
    out: Out = None,
    as_json: AsJson = False,
    record: RecordFile = None,
) -> None:
    """Train every family of parts on one task for the same time, and compare returns, dreams, bounds and speed."""
    if not arguments or "=" in arguments[0]:
        raise UserError("no config was given: `worldvae study online CONFIG` takes a task as for train.")
    config, overrides = arguments[0], arguments[1:]
    for name in STUDY_SETTINGS:
        if any(override.startswith(name) for override in overrides):
            raise UserError(f"{name} does not apply to `worldvae study online`, which sets it itself: leave it out.")
    out = out or Path("runs") / f"study-{Path(config).stem.replace(':', '-')}"
    trainings = Trainings(config, out, minutes, seed, jobs, overrides)
    _check(trainings, episodes)
    recorder = Recorder(record)
    names = _known(_names(only))
    resolved = _resolved(trainings)
    try:
        found = compare_families(trainings, resolved, names, episodes, say)
    except KeyboardInterrupt:
        say(f"Interrupted, and saved in {out}: the same command goes on.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
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
    recorder.keep(whole)


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def _check(trainings: Trainings, episodes: int) -> None:
    if not 0 < trainings.minutes < math.inf:
        raise UserError(f"--minutes {trainings.minutes:g} is not a time to train: take a number above 0.")
    if episodes < 1:
        raise UserError(f"--episodes {episodes} is not a positive number of episodes.")
    if not 1 <= trainings.jobs <= usable_cores():
        raise UserError(
            f"--jobs {trainings.jobs} must be at least 1, and at most the {usable_cores()} cores that are here."
        )


def _resolved(trainings: Trainings) -> RunConfig:
    """Return the config of the task, so that a mistake in it is reported before any training."""
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
