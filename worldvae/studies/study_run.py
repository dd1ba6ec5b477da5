"""Runs the jobs of the study of model kinds side by side, in an order in which each finds what it needs."""

import importlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from worldvae.errors import UserError
from worldvae.studies.study_cells import Job, Ledger, jobs_of, left_out
from worldvae.studies.study_rows import Row
from worldvae.studies.study_tasks import Task
from worldvae.studies.study_worker import Worker
from worldvae.studies.trainings import terminable
from worldvae.system.cores import usable_cores
from worldvae.system.json_file import write_json

CELLS_FILE = "cells.jsonl"


@dataclass(frozen=True)
class Study:
    """The study of model kinds.

    Attributes:
        out: its folder.
        budget: name of the budget.
        tasks: the tasks.
        rows: the rows.
        seeds: number of seeds, from `seed` on.
        jobs: number of jobs side by side; each has an equal share of the cores.
        seed: the first seed.
    """

    out: Path
    budget: str
    tasks: Sequence[Task]
    rows: Sequence[Row]
    seeds: int = 1
    jobs: int = 1
    seed: int = 0

    def begin(self) -> Ledger:
        """Return the file of finished cells; make the folder if there is none.

        Raises:
            UserError: If the folder holds a study with other settings that decide times, or cannot be used.
        """
        path = self.out / "settings.json"
        asked = {"budget": self.budget, "jobs": self.jobs}
        if not path.exists():
            write_json(path, asked)
            return Ledger(self.out / CELLS_FILE)
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            said = f"--budget {kept['budget']} --jobs {kept['jobs']}"
        except (OSError, ValueError, TypeError, KeyError):
            raise UserError(f"{path} cannot be read, so the study there cannot go on: take another --out.") from None
        if kept != asked:
            raise UserError(
                f"{self.out} holds a study with {said}, which decide times: ask for the same, or take another --out."
            )
        return Ledger(self.out / CELLS_FILE)

    def keys(self) -> list[str]:
        """Return the keys of all jobs."""
        return [job.key for job in self._all()]

    @cached_property
    def skipped(self) -> dict[str, str]:
        """The rows that tasks do without, each as "task/row", with the sentence that says why."""
        reasons = {f"{task.name}/{row.name}": left_out(task, row) for task in self.tasks for row in self.rows}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def _all(self) -> list[Job]:
        return jobs_of(self.tasks, self.rows, self.seeds, self.budget, self.seed, self.skipped)

    def run(self, tell: Callable[[str], object]) -> Ledger:
        """Do all jobs that are not finished; a failed one is finished, too.

        On Ctrl-C and SIGTERM every job saves its training before this function raises; the same call goes on.

        Raises:
            UserError: As `begin`, or if no row is left.
            KeyboardInterrupt: If it was interrupted.
        """
        ledger, jobs = self.begin(), self._all()
        if not any(job.work == "cell" for job in jobs):
            name, reason = next(iter(self.skipped.items()))
            raise UserError(f"no row is left to compare; {name}: {reason}")
        for name, reason in self.skipped.items():
            tell(f"{name}: skipped: {reason}")
        waiting = [job for job in jobs if job.key not in ledger.lines]
        tell(f"{len(jobs)} jobs, {len(jobs) - len(waiting)} of them finished; {self._end(waiting, [])}")
        if any(job.point for job in waiting):
            # The first optimiser of a process imports this, in 3 seconds; forked processes then have it.
            importlib.import_module("torch._dynamo")
        running: list[Worker] = []
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # a process that has used several must not be forked
        try:
            with terminable():
                while waiting or running:
                    self._fill(waiting, running, ledger, tell)
                    for worker in [one for one in running if one.ended]:
                        running.remove(worker)
                        self._finish(worker, ledger, waiting, running, tell)
                    time.sleep(0.02)
        finally:
            for worker in running:
                worker.stop()
            for worker in running:
                worker.wait()
                if worker.result.exists():  # it finished while it was asked to stop
                    ledger.append(worker.line())
            torch.set_num_threads(threads)
        return ledger

    def _fill(self, waiting: list[Job], running: list[Worker], ledger: Ledger, tell: Callable[[str], object]) -> None:
        """Start jobs that find what they need, and give up those that never will."""
        for lost in [one for one in waiting if ledger.ready(one) and ledger.hindrance(one) is not None]:
            waiting.remove(lost)
            ledger.append(lost.line(None, ledger.hindrance(lost), 0.0))
            tell(f"{lost.key}: failed: {ledger.hindrance(lost)}")
        threads = max(1, usable_cores() // self.jobs)
        while len(running) < self.jobs:
            job = next((job for job in waiting if ledger.ready(job)), None)
            if job is None:
                return
            waiting.remove(job)
            tuned = ledger.lines[job.needs[1]] if len(job.needs) > 1 else {}
            running.append(Worker.start(job, self.out, tuple(tuned.get("settings", ())), threads))
            tell(f"{job.key}: started, {_about(job.expected)}, should end at {_clock(job.expected)}")

    def _finish(
        self,
        worker: Worker,
        ledger: Ledger,
        waiting: list[Job],
        running: list[Worker],
        tell: Callable[[str], object],
    ) -> None:
        worker.wait()
        if worker.stopped and not worker.result.exists():  # by a signal that the parent did not send
            raise KeyboardInterrupt
        line = worker.line()
        ledger.append(line)
        tell(f"{worker.job.key}: {_said(line)}; {self._end(waiting, running)}")

    def _end(self, waiting: list[Job], running: list[Worker]) -> str:
        """Return when the study should end."""
        now = time.monotonic()
        left = sum(job.expected for job in waiting)
        left += sum(max(0.0, one.job.expected - (now - one.began)) for one in running)
        return f"the study should end at {_clock(left / self.jobs)}" if left else "nothing is left to do"


def _said(line: dict[str, Any]) -> str:
    if line["failed"] is not None:
        return f"failed: {line['failed']}"
    blocks = [f"{name} failed" for name, block in line.get("measures", {}).items() if "failed" in block]
    return ", ".join([f"done in {line['minutes']:.1f} min", *blocks])


def _about(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"


def _clock(seconds: float) -> str:
    return f"{datetime.now().astimezone() + timedelta(seconds=seconds):%H:%M}"
