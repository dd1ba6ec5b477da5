"""Trainings of a comparison: one `worldvae train` process per family, each for the same time."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worldvae.runs.checkpoint import latest
from worldvae.system.cores import usable_cores

FINISHED_FILE = "compared"
"""Name of the file that marks a run as trained for its full time."""


@dataclass(frozen=True)
class Trainings:
    """The trainings of a comparison.

    Attributes:
        config: argument of `worldvae train`.
        out: folder of the runs, which are named after the families.
        minutes: training time of each family.
        seed: seed of all trainings.
        jobs: number of parallel trainings; each gets an equal share of the cores and, if there are several, learns
            behaviour in the same process as the world model.
        overrides: further settings, the same for all.
    """

    config: str
    out: Path
    minutes: float
    seed: int
    jobs: int
    overrides: Sequence[str]

    def run(self, families: Sequence[str], tell: Callable[[str], None]) -> dict[str, str | None]:
        """Train every family for the rest of its time; return the reason of each failure, or None.

        On Ctrl-C and SIGTERM all trainings save their state before this function raises.

        Raises:
            KeyboardInterrupt: If it was interrupted.
        """
        waiting, found = list(families), dict.fromkeys(families)
        running: dict[str, subprocess.Popen[bytes]] = {}
        try:
            with terminable():
                while waiting or running:
                    while waiting and len(running) < self.jobs:
                        name = waiting.pop(0)
                        if (process := self._start(name)) is not None:
                            running[name] = process
                            tell(f"{name}: training, see {self._log(name)}")
                    for name in [name for name, process in running.items() if process.poll() is not None]:
                        found[name] = self._ended(name, running.pop(name).returncode)
                        tell(f"{name}: {found[name] or 'trained'}")
                    time.sleep(0.1)
        finally:
            for process in running.values():  # they run in sessions of their own: no other signal reaches them
                process.send_signal(signal.SIGINT)
            for process in running.values():
                process.wait()
        return found

    def _log(self, name: str) -> Path:
        return self.out / f"{name}.log"

    def _start(self, name: str) -> subprocess.Popen[bytes] | None:
        """Start or continue a training; None if it has had its full time."""
        folder = self.out / name
        if (folder / FINISHED_FILE).exists():
            return None
        if latest(folder / "checkpoints") is None:  # none of its files is a checkpoint to continue from
            shutil.rmtree(folder, ignore_errors=True)
        left = self.minutes - minutes_of(folder)
        command = [sys.executable, "-m", "worldvae", "train", "--minutes", str(max(left, 1e-3))]
        if folder.exists():
            command += ["--resume", str(folder)]
        else:
            inline = ["train.behaviour=inline"] if self.jobs > 1 else []
            command += ["--out", str(folder), "--seed", str(self.seed)]
            command += [self.config, f"family={name}", *inline, *self.overrides, "train.eval_episodes=0"]
        share = max(1, usable_cores() // self.jobs)
        threads = min(share, int(os.environ.get("OMP_NUM_THREADS") or share))
        with self._log(name).open("w", encoding="utf-8") as file:
            return subprocess.Popen(
                command,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def _ended(self, name: str, code: int) -> str | None:
        if code == 0:
            (self.out / name / FINISHED_FILE).touch()
            return None
        log = self._log(name)
        if code < 0:
            return f"killed by {signal.Signals(-code).name} ({log})"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line for line in lines if line.strip()] or [f"exit code {code}"]
        return f"{said[-1].removeprefix('worldvae: ')} ({log})"


def minutes_of(folder: Path) -> float:
    """Return the training time of a run up to its newest checkpoint."""
    newest = latest(folder / "checkpoints")
    if newest is None:
        return 0.0
    step, seconds = int(newest.name.rpartition("_")[2]), 0.0
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            said = json.loads(line)
        except json.JSONDecodeError:  # the last line, if the run was killed
            continue
        if said["step"] <= step:
            seconds = said["time"]
    return seconds / 60


@contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
