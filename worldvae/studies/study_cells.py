"""The cells of the study of model kinds, and the file of finished ones: a JSON line each."""

import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from worldvae.errors import UserError
from worldvae.studies.study_rows import REFERENCE, ROWS, Row
from worldvae.studies.study_tasks import EVERY_POINT, TASKS, Budget, Point, Task
from worldvae.system.json_file import plain

Work = Literal["data", "tuning", "cell"]

MEASURING = 45.0
"""Seconds that the measurements of a cell take, as a first guess for the time of the end."""


@dataclass(frozen=True)
class Job:
    """A piece of work with one line as its result: a task's data, a row's tuning, or a cell.

    Attributes:
        work: what it is.
        task: name of the task.
        budget: name of the budget.
        row: name of the row; none for data.
        seed: of weights, batches, noise and episodes to plan through.
        point: how long the row is trained; none where nothing is.
    """

    work: Work
    task: str
    budget: str
    row: str = ""
    seed: int = 0
    point: Point | None = None

    @property
    def key(self) -> str:
        """The name of the job, the same in every run of the study."""
        if self.work != "cell":
            return "/".join(part for part in (self.task, self.row, self.work) if part)
        return "/".join([self.task, self.row, f"seed{self.seed}", self.point.name if self.point else "untrained"])

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the jobs that have to be finished before."""
        data = Job("data", self.task, self.budget).key
        if self.work == "data":
            return ()
        tuned = self.work == "cell" and self.point is not None
        return (data, Job("tuning", self.task, self.budget, self.row).key) if tuned else (data,)

    @property
    def spends(self) -> Budget:
        """The budget of its task."""
        return TASKS[self.task].budget(self.budget)

    @property
    def expected(self) -> float:
        """Seconds that it takes, roughly."""
        if self.work == "data":
            return 0.5 * self.spends.recorded
        if self.work == "tuning":
            return self.spends.tuning * self.spends.seconds / 4
        return MEASURING + (self.spends.seconds * self.point.times if self.point else 0.0)

    def line(self, result: dict[str, Any] | None, failed: str | None, minutes: float) -> dict[str, Any]:
        """Return the line of the file of cells."""
        head = {"key": self.key, "work": self.work, "task": self.task, "row": self.row, "seed": self.seed}
        point = self.point.name if self.point else None
        return head | {"point": point, "failed": failed, "minutes": round(minutes, 3)} | (result or {})


def left_out(task: Task, row: Row) -> str | None:
    """Return the sentence that says why a task does without a row, or None if it has it.

    A row is left out where its kind or one of its settings does not exist, and where it is another row's equal: rows
    that differ only in how they draw frames are, on a task without frames such as `linear`.

    Raises:
        UserError: If the config of the task does not exist or is refused.
    """
    if row.pixels_only and task.configure().env.obs == "state":
        return f"it differs from {REFERENCE} in how frames are drawn, and the task has none"
    try:
        if row.overrides:
            task.configure(row.overrides)
    except UserError as error:
        return str(error)
    return None


def jobs_of(
    tasks: Sequence[Task],
    rows: Sequence[Row],
    seeds: int,
    budget: str,
    seed: int = 0,
    skipped: Collection[str] = (),
) -> list[Job]:
    """Return all jobs in their order: the data of a task, then row by row tuning and cells; none of `skipped` rows."""
    jobs = []
    for task in tasks:
        jobs.append(Job("data", task.name, budget))
        for row in rows:
            if f"{task.name}/{row.name}" in skipped:
                continue
            if row.learns:
                jobs.append(Job("tuning", task.name, budget, row.name))
            points: Sequence[Point | None] = task.budget(budget).points if row.learns else (None,)
            jobs += [
                Job("cell", task.name, budget, row.name, seed + i, point) for point in points for i in range(seeds)
            ]
    return jobs


class Ledger:
    """The file of finished jobs, `cells.jsonl`: one JSON line each, in the order in which they finished.

    Args:
        path: of the file.

    Attributes:
        lines: the lines by their keys; of two with one key, the later.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lines = path, dict[str, dict[str, Any]]()
        try:
            kept = path.read_bytes() if path.exists() else b""
            whole = kept[: kept.rfind(b"\n") + 1]  # a line that a crash cut off was not finished
            if len(whole) < len(kept):
                os.truncate(path, len(whole))
        except OSError as error:
            raise UserError(f"cannot read {path} ({error.strerror}): repair it, or take another --out.") from error
        for number, text in enumerate(whole.decode("utf-8", errors="replace").splitlines(), 1):
            try:
                line = json.loads(text)
                self.lines[line["key"]] = line
            except (ValueError, TypeError, KeyError):
                raise UserError(
                    f"{path}, line {number}, is not a cell: delete that line; it is then done anew."
                ) from None

    def append(self, line: dict[str, Any]) -> None:
        """Add a line; a reader, also after a crash, finds all of it or nothing.

        Raises:
            UserError: If the file cannot be written.
        """
        text = json.dumps(plain(line), ensure_ascii=False, allow_nan=False) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, text.encode("utf-8"))  # one call: lines of two writers cannot mix
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise UserError(f"cannot write {self.path} ({error.strerror}): free some disk, and go on.") from error
        self.lines[line["key"]] = json.loads(text)

    def ready(self, job: Job) -> bool:
        """Return whether all that a job needs is finished."""
        return all(key in self.lines for key in job.needs)

    def hindrance(self, job: Job) -> str | None:
        """Return why a job cannot be done because one that it needs has failed, or None."""
        reasons = (self.lines[key]["failed"] for key in job.needs)
        return next((reason for reason in reasons if reason is not None), None)

    def cells(self) -> list[dict[str, Any]]:
        """Return the lines of cells, in the order of the tables of tasks and rows."""
        tasks, rows, points = list(TASKS), list(ROWS), [None, *(point.name for point in EVERY_POINT)]
        found = [one for one in self.lines.values() if one["work"] == "cell"]
        # Lines of another version are left out.
        found = [one for one in found if one["task"] in tasks and one["row"] in rows and one["point"] in points]
        return sorted(
            found, key=lambda one: (tasks.index(one["task"]), rows.index(one["row"]), points.index(one["point"]))
        )
