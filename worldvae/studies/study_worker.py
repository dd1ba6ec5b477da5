"""A process that does one job of the study of model kinds, with its share of the cores."""

import json
import os
import signal
import time
import warnings
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from worldvae.studies.study_cells import Job
from worldvae.studies.study_jobs import Desk, Interrupted, do, reason_of
from worldvae.system.allocator import keep_freed_memory
from worldvae.system.child import start_method
from worldvae.system.json_file import write_json
from worldvae.training.progress import say

EXIT_STOPPED = 130

PATIENCE = 2.0
"""Seconds after which a training that has not asked whether to stop is no training any more."""


@dataclass
class Worker:
    """A job under way in a process of its own.

    Attributes:
        job: the job.
        process: the process.
        result: file that the process writes at its end.
        began: monotonic time of its start.
    """

    job: Job
    process: BaseProcess
    result: Path
    began: float

    @classmethod
    def start(cls, job: Job, out: Path, settings: tuple[str, ...], threads: int) -> "Worker":
        """Start a job.

        The process is forked where that is possible; for this the caller must not have computed with more than one
        thread.
        """
        result = Desk(out).folder(job) / "result.json"
        result.parent.mkdir(parents=True, exist_ok=True)
        result.unlink(missing_ok=True)
        process = start_method(learns=True).Process(  # type: ignore[attr-defined]
            target=_work, args=(job, out, settings, threads, result)
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of any fork while there are threads
            process.start()
        return cls(job, process, result, time.monotonic())

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return not self.process.is_alive()

    @property
    def stopped(self) -> bool:
        """Whether the process was asked to stop, and did."""
        return self.process.exitcode == EXIT_STOPPED

    def line(self) -> dict[str, Any]:
        """Return the line of a job whose process has ended; if it died, the line says how."""
        minutes = (time.monotonic() - self.began) / 60
        if self.result.exists():
            found = json.loads(self.result.read_text(encoding="utf-8"))
            return self.job.line(found["result"], found["failed"], minutes)
        code = self.process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return self.job.line(None, f"its process was {how}" if code < 0 else f"its process {how}", minutes)

    def stop(self) -> None:
        """Ask the process to save and to end."""
        if self.process.is_alive():
            self.process.terminate()

    def wait(self, seconds: float = 15.0) -> None:
        """Wait for the end of the process; after so many seconds it is killed."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class _Stop:
    """Notes SIGTERM: a training saves and ends; a measurement ends at once."""

    def __init__(self) -> None:
        self.asked, self.asks = False, 0.0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        # A training asks after every update. Nobody has asked for a while: something else is under way, end it.
        if time.monotonic() - self.asks > PATIENCE:
            os._exit(EXIT_STOPPED)

    def now(self) -> bool:
        """Return whether to stop."""
        self.asks = time.monotonic()
        return self.asked


def _work(job: Job, out: Path, settings: tuple[str, ...], threads: int, result: Path) -> None:
    """Main function of the process."""
    stop = _Stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C reaches all processes of a terminal; the parent decides
    signal.signal(signal.SIGTERM, stop)
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        found, failed = do(job, Desk(out, stop.now, lambda text: say(f"  {job.key}: {text}")), settings), None
    except Interrupted:
        os._exit(EXIT_STOPPED)
    except Exception as error:  # a line of the study says why
        found, failed = None, reason_of(error)
    write_json(result, {"result": found, "failed": failed})
