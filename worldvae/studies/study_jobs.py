"""What each job of the study of model kinds does: record a task's episodes, tune a row, train and measure a cell."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldvae.errors import UserError
from worldvae.models.kinds import new_model
from worldvae.runs.settings import RunConfig
from worldvae.studies.recorded import Recorded
from worldvae.studies.reward_error import reward_errors
from worldvae.studies.study_blocks import measure_all
from worldvae.studies.study_cells import Job
from worldvae.studies.study_context import MeasureContext
from worldvae.studies.study_data import open_recorded, whole_episodes
from worldvae.studies.study_rows import REFERENCE, ROWS, Row
from worldvae.studies.study_size import Dialled, dial, planning_parameters
from worldvae.studies.study_tasks import TASKS, Task
from worldvae.studies.study_training import OfflineTraining, build, layouts_of

TUNED_HORIZON = 10
"""Steps ahead at which configurations are chosen: predictions of the next reward hardly tell models apart."""

Tell = Callable[[str], object]


class Interrupted(Exception):
    """A job was asked to stop, and has saved what it had."""


@dataclass(frozen=True)
class Desk:
    """Where a job works.

    Attributes:
        out: folder of the study.
        stopped: whether the job has been asked to stop.
        tell: takes lines of progress.
    """

    out: Path
    stopped: Callable[[], bool] = lambda: False
    tell: Tell = lambda _: None

    def folder(self, job: Job) -> Path:
        """Return the folder of a job's checkpoints and films."""
        return self.out / "work" / job.key.replace("/", "_")

    def data(self, job: Job) -> Path:
        """Return the folder of the recorded episodes of a job's task."""
        return self.out / "data" / job.task


def do(job: Job, desk: Desk, settings: tuple[str, ...] = ()) -> dict[str, Any]:
    """Do a job; return what its line says.

    Args:
        job: the job.
        desk: where it works.
        settings: what tuning has chosen for the row, and the width of equal size.

    Raises:
        Interrupted: If it was asked to stop.
        Exception: Whatever makes the job fail.
    """
    task = TASKS[job.task]
    recorded = open_recorded(task.configure().env, job.spends.recorded, desk.data(job))
    if job.work == "data":
        return {"digest": recorded.digest, "episodes": job.spends.recorded}
    row = ROWS[job.row]
    if job.work == "tuning":
        return _tune(job, desk, task, row, recorded)
    return _cell(job, desk, task, row, recorded, settings)


def _config(task: Task, row: Row, *settings: str) -> RunConfig:
    return task.configure((*row.overrides, *settings))


def equal_size(task: Task, row: Row) -> Dialled:
    """Return the width with which a row has as many weights in use when planning as the reference row.

    Raises:
        UserError: If the row's settings are refused.
    """

    def size(of: Row, settings: tuple[str, ...]) -> int:
        config = _config(task, of, *settings)
        with torch.random.fork_rng(devices=[]):
            return planning_parameters(new_model(*layouts, config.model, config.objective))

    layouts = layouts_of(_config(task, row))
    reference = size(ROWS[REFERENCE], ())
    return dial(lambda settings: size(row, settings), row.dial, reference)


def _tune(job: Job, desk: Desk, task: Task, row: Row, recorded: Recorded) -> dict[str, Any]:
    """Choose the settings of a row by the validation reward R^2 after a quarter of B; every row tries as many.

    Raises:
        ValueError: If no configuration could be trained.
    """
    sized = equal_size(task, row)
    desk.tell(sized.sentence())
    tried: list[dict[str, Any]] = []
    for number, settings in enumerate(row.candidates(job.spends.tuning)):
        label = " ".join(settings) or "its own settings"
        try:
            score = _trial(job, desk, task, row, recorded, (*sized.overrides, *settings), number)
            failed = None if math.isfinite(score) else "its reward R^2 is not a number"
        except Interrupted:
            raise
        except Exception as error:  # one configuration that diverges costs no other
            score, failed = math.nan, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:300]
        tried.append({"settings": list(settings), "reward_r2": score, "failed": failed})
        desk.tell(f"{label}: {failed or f'reward R^2 {score:.3f} at {TUNED_HORIZON} steps'}")
    sound = [one for one in tried if one["failed"] is None]
    if not sound:
        raise ValueError(f"no configuration could be trained; the first: {tried[0]['failed']}")
    best = max(sound, key=lambda one: float(one["reward_r2"]))
    size = {"parameters": sized.parameters, "reference": sized.reference, "sentence": sized.sentence()}
    return {"settings": [*sized.overrides, *best["settings"]], "tried": tried, "size": size}


def _trial(
    job: Job,
    desk: Desk,
    task: Task,
    row: Row,
    recorded: Recorded,
    settings: tuple[str, ...],
    number: int,
) -> float:
    config, model = build(_config(task, row, *settings), layouts_of(_config(task, row)), job.seed)
    folder = desk.folder(job) / f"trial{number}"
    training = OfflineTraining(model, config, recorded, folder, job.seed, job.spends.seconds / 4)
    if not training.run(desk.stopped, desk.tell):
        raise Interrupted
    rows, lengths, _ = whole_episodes(recorded, "validation")
    ahead = min(TUNED_HORIZON, int(lengths.max()) + 1 - task.context)
    return reward_errors(model, rows, lengths, (ahead,), task.context).r2[ahead]


def _cell(job: Job, desk: Desk, task: Task, row: Row, recorded: Recorded, settings: tuple[str, ...]) -> dict[str, Any]:
    config, folder = _config(task, row, *settings), desk.folder(job)
    folder.mkdir(parents=True, exist_ok=True)
    training: dict[str, Any] | None = None
    model = planner = None
    if job.point is not None:
        layouts = layouts_of(config)
        config, model = build(config, layouts, job.seed)
        fitted = OfflineTraining(
            model, config, recorded, folder / "checkpoints", job.seed, *job.spends.limits(job.point)
        )
        if not fitted.run(desk.stopped, desk.tell):
            raise Interrupted
        training = fitted.spent.as_json() | {
            "parameters": planning_parameters(model),
            "precision": model.precision,
            "settings": list(settings),
        }
        _, planner = build(_config(task, row, *settings, *row.planning), layouts, job.seed)
        planner.load_state_dict(model.state_dict())
    if desk.stopped():
        raise Interrupted
    context = MeasureContext(
        task, job.spends, row, config, recorded, desk.data(job), job.seed, folder, model=model, planner=planner
    )
    return {"training": training, "digest": recorded.digest, "measures": measure_all(context, desk.tell)}


def reason_of(error: Exception) -> str:
    """Return the first line of an error, with its class unless it is a mistake in settings."""
    first = (str(error).splitlines() or [""])[0][:400]
    return first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"
