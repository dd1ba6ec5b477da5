"""`worldvae train CONFIG`: learn a world, and to act in it."""

import json
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Annotated, Any

import typer

from worldvae.commands.record import Recorder, RecordFile
from worldvae.config import config_names
from worldvae.errors import UserError
from worldvae.evaluation.play import evaluate
from worldvae.films.film import film
from worldvae.runs.checkpoint import latest
from worldvae.runs.settings import configure, find_or_make
from worldvae.system.json_file import plain
from worldvae.system.lock import Taken
from worldvae.training.progress import say
from worldvae.training.trainer import Trainer

EXIT_INTERRUPTED = 130


def train(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]...",
            help="A name in configs/, a YAML file or any Gymnasium id; then overrides such as env.action_repeat=2.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the run is written; default: runs/NAME.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after this many minutes of training; resumable.")] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on exactly where this run stopped; with settings such as train.steps=20000, further."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
    record: RecordFile = None,
) -> None:
    """Train a world model, and a policy in its imagination."""
    if minutes is not None and not minutes > 0:
        raise UserError(f"--minutes {minutes:g} is not a time to train: take a number above 0.")
    recorder, began = Recorder(record), time.monotonic()
    trainer = _resumed(resume, arguments, out, seed) if resume is not None else _new(arguments or [], out, seed)
    run = trainer.run
    say(f"{run}\n{_how(trainer)}; Ctrl-C saves. Everything is written to {run.folder}")
    settings = run.config.train
    if settings.steps <= settings.prefill:
        say(f"Nothing will be learned: train.steps={settings.steps} ends within train.prefill={settings.prefill}.")
    try:
        done = trainer.train(minutes)
        if not done:
            say(f"Stopped at step {run.steps} and saved. Go on with: worldvae train --resume {run.folder}")
            if trainer.interrupted:
                raise typer.Exit(EXIT_INTERRUPTED)
        head = {"config": None if resume is not None else " ".join(arguments or [])}
        result: dict[str, Any] = plain(head | _finish(trainer, (time.monotonic() - began) / 60))
        if as_json:
            print(json.dumps(result))
        recorder.keep(result)
    except KeyboardInterrupt:  # a second one within a step, or one while the result is evaluated
        saved = latest(run.folder / "checkpoints") is not None
        say(f"Interrupted. {f'Go on with: worldvae train --resume {run.folder}' if saved else 'Nothing was saved.'}")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        trainer.close()


def _new(arguments: list[str], out: Path | None, seed: int | None) -> Trainer:
    if not arguments or "=" in arguments[0]:
        raise UserError(
            "no config was given: `worldvae train CONFIG` takes a name in configs/ "
            f"({', '.join(config_names())}), a YAML file or any Gymnasium id."
        )
    name, overrides = arguments[0], arguments[1:]
    if seed is not None:
        overrides = [*overrides, f"seed={seed}"]
    source = find_or_make(name)
    config = configure(source, overrides)
    if out is not None:
        return Trainer.begin(config, out)
    base = Path("runs") / (source.stem if isinstance(source, Path) else name).replace("/", "-").replace(":", "-")
    for number in count(1):  # runs/NAME, or runs/NAME-2 and so on: of several that begin at once each gets its own
        with suppress(Taken):
            return Trainer.begin(config, base if number == 1 else base.with_name(f"{base.name}-{number}"), new=True)
    raise AssertionError("there is no end of numbers")


def _how(trainer: Trainer) -> str:
    """Describe device, precision and behaviour learning of a training, with the choices made for "auto"."""
    run, kind = trainer.run, trainer.behaviour.kind
    behaviour = {
        "none": "no behaviour is learnt",
        "inline": "behaviour in the same process",
        "process": "behaviour in a process of its own",
    }[kind]
    return f"training on {run.device} in {run.model.precision}, {behaviour}"


def _resumed(folder: Path, arguments: list[str] | None, out: Path | None, seed: int | None) -> Trainer:
    overrides = arguments or []
    names = [argument for argument in overrides if "=" not in argument]
    given = [*names, *([f"--out {out}"] if out else []), *([] if seed is None else [f"--seed {seed}"])]
    if given:
        raise UserError(
            f"--resume goes on with the run's own config, and {' '.join(given)!r} was given too; leave it out "
            "(settings such as train.steps=20000 can be given)."
        )
    return Trainer.resume(folder, overrides)


def _finish(trainer: Trainer, minutes: float) -> dict[str, Any]:
    """Evaluate, film a dream and print where the files are; return the numbers of the training."""
    run, train = trainer.run, trainer.run.config.train
    lines = [f"Trained for {minutes:.1f} minutes: {run.steps} environment steps, {trainer.updates} updates."]
    result = None
    if train.eval_episodes:
        result = evaluate(run.agent, run.config.env, train.eval_episodes)
        low, high = result.ci95
        trainer.logger.scalars(run.steps, {"eval/return": result.mean, "eval/random_return": result.random_mean})
        lines.append(
            f"Return {result.mean:.1f} (95 % interval {low:.1f} to {high:.1f}, {train.eval_episodes} episodes; "
            f"uniform actions: {result.random_mean:.1f})."
        )
    dream, filmed, more = None, "", ""
    if run.model.shows:
        dream = trainer.show_dream()
        path = film(run.folder / "dreams" / f"step_{run.steps:08d}.gif", dream.film())
        filmed, more = f"Dream film: {path}. ", f", or worldvae dream {run.folder}"
    lines += [
        f"{filmed}Model and replay: {run.folder}. Curves: tensorboard --logdir {run.folder}",
        f"Next: worldvae eval {run.folder} --episodes 20{more}",
    ]
    say("\n".join(lines))
    return {
        "env_id": run.config.env.id,
        "seed": run.config.seed,
        "environment_steps": run.steps,
        "updates": trainer.updates,
        "minutes": minutes,
        "finished": trainer.finished,
        "precision": run.model.precision,
        "behaviour": trainer.behaviour.kind,
        "actor": None if result is None else result.as_json(),
        "dream": None if dream is None else dream.as_json(),
        "run": str(run.folder),
    }
