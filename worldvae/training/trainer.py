"""The training loop: collect, learn the world, learn to act in it, show how it goes."""

import shutil
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worldvae.agents import RandomAgent
from worldvae.data.replay import Replay
from worldvae.envs import EnvPool
from worldvae.errors import Diverged, UserError
from worldvae.evaluation.held_out import held_out_dream
from worldvae.films.open_loop import OpenLoop
from worldvae.networks.optimiser import risen_again
from worldvae.runs import checkpoint
from worldvae.runs.resuming import acting, schedule
from worldvae.runs.run import check_folder, create, load_with_state
from worldvae.runs.settings import RunConfig
from worldvae.system.allocator import keep_freed_memory
from worldvae.system.cores import limit_threads
from worldvae.system.lock import Lock, claim
from worldvae.training.behaviour import make_behaviour, threads_beside
from worldvae.training.collector import Collector, Finished, without_unfinished
from worldvae.training.learner import Learner
from worldvae.training.logger import Logger
from worldvae.training.progress import Progress, say
from worldvae.types import Batch, State

WRITTEN = ("config.yaml", "metrics.jsonl", "replay")
"""What a trainer writes into the folder of a new run before its first step."""

FILM_CONTEXT, FILM_HORIZON, FILM_EPISODES = 5, 40, 4


class Trainer:
    """Trains a run from its first step, or from its newest checkpoint on.

    One decision in every environment is followed by `ratio` updates per decision, so that a run does not depend on
    how fast the machine is: the same seed gives the same run, also across an interruption. Making a trainer lets the
    whole process keep freed memory (`keep_freed_memory`), and torch use no more threads than there are cores to use.

    Args:
        config: of a new run.
        folder: the run directory.
        new: whether the folder must not be there yet.

    Attributes:
        interrupted: whether Ctrl-C or SIGTERM ended the training.

    Raises:
        Taken: If the folder has to be new and is not.
        UserError: If the folder already holds a run or cannot be written, or the environment cannot be made.
    """

    def __init__(self, config: RunConfig, folder: Path, *, new: bool = False) -> None:
        with ExitStack() as opened:
            # The folder is held before anything in it is looked at. Should anything fail from here on, no run has
            # begun: what was written here goes again, and the folder is free for the next attempt.
            self.lock = claim(folder, opened, new=new)
            self._open(config, opened)
            layouts = (self.pool.observation_layout, self.pool.action_layout)
            there = {path for path in (folder / name for name in WRITTEN) if path.exists()}
            self.run = create(folder, config, *layouts)
            opened.callback(_remove, {folder / name for name in WRITTEN} - there)
            self.noise = torch.Generator(self.run.device).manual_seed(config.seed)
            self._start_behaviour(opened)
            self.replay = Replay(folder / "replay", *layouts, config.train.envs, config.train.replay_bytes)
            self.data = torch.Generator().manual_seed(config.seed)
            self.credit, self.updates = 0.0, 0
            self._assemble()
            self.logger = Logger(folder)
            opened.pop_all()

    @classmethod
    def resume(cls, folder: Path, overrides: Sequence[str] = ()) -> "Trainer":
        """Return a trainer that goes on exactly where the run in `folder` stopped.

        Args:
            folder: the run directory.
            overrides: settings that change from here on, as `train.steps=20000`. Where the schedule of the step sizes
                changes with them, these rise to where the new one has them, over `optimiser.warmup` updates.

        Raises:
            UserError: If there is no run, another version wrote it, or a setting cannot change any more.
        """
        self = cls.__new__(cls)
        check_folder(folder)
        with ExitStack() as opened:
            self.lock = opened.enter_context(closing(Lock(folder)))
            self.run, state = load_with_state(folder, overrides=overrides, resuming=True)
            config = self.run.config
            if config.train.envs != (lanes := int(state["replay"]["lanes"])):
                raise UserError(
                    f"{folder} was trained with train.envs={lanes}, and its config.yaml now says "
                    f"{config.train.envs}: undo what was edited, or train a new run."
                )
            self._open(config, opened)
            self.run.check_layouts(self.pool.observation_layout, self.pool.action_layout)
            self.noise, self.data = torch.Generator(self.run.device), torch.Generator()
            self.noise.set_state(state["noise"])
            self.data.set_state(state["data"])
            self._start_behaviour(opened)
            if self.behaviour.kind != state["behaviour"]["kind"]:
                raise UserError(
                    f"{folder} was trained with train.behaviour={state['behaviour']['kind']} and would now go on with "
                    f"{self.behaviour.kind}: undo what was edited, or train a new run."
                )
            self.replay = Replay.open(folder / "replay", state["replay"])
            self.credit, self.updates = state["credit"], state["updates"]
            self._assemble()
            if state["schedule"] != schedule(config):
                state = _risen_again(state)
            if state["acting"] != acting(config):
                state = state | {"collector": without_unfinished(state["collector"])}
            self.learner.optimiser.load_state_dict(state["optimiser"])
            self.behaviour.load_state_dict(state["behaviour"])
            self.collector.load_state_dict(state["collector"], type(self.run.model.initial(1)))
            if overrides:
                self.run.write_config()
            self.logger = Logger(folder, resumed_at=self.run.steps)
            opened.pop_all()
        return self

    def _open(self, config: RunConfig, opened: ExitStack) -> None:
        keep_freed_memory()
        limit_threads()
        self.pool = opened.enter_context(EnvPool([config.env] * config.train.envs, config.train.mode))

    def _start_behaviour(self, opened: ExitStack) -> None:
        self.behaviour = opened.enter_context(closing(make_behaviour(self.run, self.noise)))

    def _assemble(self) -> None:
        """Put together what a new run and a resumed one have in common."""
        config = self.run.config
        self.learner = Learner(self.run.model, config.optimiser)
        self.collector = Collector(self.pool, self.replay, config.seed)
        self.returns: deque[float] = deque(maxlen=10)
        self._recent: dict[str, list[Tensor]] = {}
        self._saved = self.updates
        self._batch: Batch | None = None
        self._states: State | None = None
        self._diverged: Diverged | None = None
        self.interrupted = False

    @property
    def finished(self) -> bool:
        """Whether everything the config asks for has been done."""
        train = self.run.config.train
        return self.run.steps >= train.steps or bool(train.updates and self.updates >= train.updates)

    def train(self, minutes: float | None = None) -> bool:
        """Train until the config's steps are done, `minutes` are over or Ctrl-C is pressed; return whether it is done.

        Whatever ends it, an environment that fails or a bug included, the run is saved before this returns or raises;
        but for a second Ctrl-C, which does not wait, and a training that has diverged, which keeps what was saved last.

        Raises:
            UserError: If the environment fails.
            Diverged: If what is learned is no longer finite.
        """
        if self._diverged is not None:
            raise self._diverged
        try:
            self._train(minutes)
            if self.finished:
                self.behaviour.finish()
            self.save()
        except KeyboardInterrupt:
            raise
        except Diverged as error:
            self._diverged = Diverged(f"{error} {self._last_saved()}")
            raise self._diverged from error
        except BaseException as error:
            self._save_before(error)
            raise
        return self.finished

    def _train(self, minutes: float | None) -> None:
        config = self.run.config
        uniform = RandomAgent(self.pool.action_layout, config.train.persistence)
        explorer = uniform if config.train.explore == uniform.name else self.run.make_agent(config.train.explore)
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        repeat = config.env.action_repeat
        with (
            self._interruptible(),
            threads_beside(self.behaviour),
            Progress(config.train.steps, config.train.updates) as progress,
        ):
            while not (self.finished or self.interrupted or (deadline and time.monotonic() > deadline)):
                filling = self.run.steps < config.train.prefill
                self.collector.begin(uniform if filling else explorer, self.noise)
                if not filling:  # while the environments play, where they have processes of their own
                    self._learn(len(self.pool))
                ended = self.collector.finish()
                self._count(ended)
                self.run.steps += len(self.pool) * repeat
                if self.updates >= self._saved + config.train.checkpoint_every and self._is_sound():
                    self.save()
                progress.show(self.run.steps, self.updates, self.returns)

    def _save_before(self, error: BaseException) -> None:
        """Save the run before `error` ends it: with fresh episodes, as nobody knows where the present ones stand."""
        self.collector.abandon()
        try:
            outcome = f"The run was saved: {self.save()}."
        except Exception as failure:
            outcome = f"The run could not be saved: {failure} {self._last_saved()}"
        if isinstance(error, UserError):
            raise UserError(f"{error} {outcome}") from error
        say(f"{type(error).__name__} ends the training. {outcome}")

    def _last_saved(self) -> str:
        """Say what there is to go on from when the present state is not saved."""
        folder = self.run.folder
        path = checkpoint.latest(folder / "checkpoints")
        if path is None:
            return f"Nothing was saved, as no checkpoint had been written before: delete {folder} and train anew."
        return f"What was saved last is {path}; go on from it with: worldvae train --resume {folder} SETTING=VALUE."

    def _count(self, ended: list[Finished]) -> None:
        for episode in ended:
            self.returns.append(episode.ret)
            self.logger.scalars(self.run.steps, {"train/return": episode.ret, "train/length": episode.length})

    def _learn(self, decisions: int) -> None:
        """Make the updates that `decisions` are worth."""
        train = self.run.config.train
        if self.updates == 0 and self.credit == 0:
            seen = self._some_rows()
            self.run.model.calibrate(seen.observation, seen.reward)
            self.credit = float(train.pretrain)
        self.credit += decisions * train.ratio
        while self.credit >= 1 and not (train.updates and self.updates >= train.updates):
            self.credit -= 1
            self._update()

    def _some_rows(self) -> Batch:
        """Rows from all over the replay, for the calibration."""
        return self.replay.sample(64, 16, self.data).to(self.run.device)

    def _update(self) -> None:
        train = self.run.config.train
        self._batch = self.replay.sample(train.batch, train.length, self.data, self._batch)
        steps = self.run.steps + len(self.pool) * self.run.config.env.action_repeat  # with the one under way
        progress = max(steps / train.steps, self.updates / train.updates if train.updates else 0.0)
        states, metrics = self.learner.update(self._batch.to(self.run.device), self.noise, progress)
        self._states = states.flatten()
        metrics |= self.behaviour.update(self._states, progress)
        self.updates += 1
        for name, value in metrics.items():
            self._recent.setdefault(name, []).append(value)
        if self.updates % train.log_every == 0:
            self._log(steps)
        if self.updates % train.film_every == 0:
            self.show_dream()

    def _log(self, steps: int) -> None:
        means = {name: _finite_mean(torch.stack(values)) for name, values in self._recent.items()}
        self.logger.scalars(steps, means | {"train/updates": self.updates, "train/episodes": self._episodes()})
        self._recent = {}

    def _episodes(self) -> int:
        return sum(self.collector.episodes)

    def show_dream(self) -> OpenLoop:
        """Dream held-out episodes, and write the film and a reconstruction to TensorBoard."""
        dream = held_out_dream(self.run, FILM_CONTEXT, FILM_HORIZON, FILM_EPISODES)
        film = dream.film()
        self.logger.gif(self.run.steps, "dream/open_loop", film)
        self.logger.image(self.run.steps, "dream/reconstruction", film[FILM_CONTEXT - 1])
        self.logger.scalars(
            self.run.steps, {f"dream/psnr_{h}": dream.psnr[h - 1] for h in (1, 5, 15, 40) if h <= len(dream.psnr)}
        )
        return dream

    def save(self) -> Path:
        """Write a checkpoint from which `resume` goes on exactly; return its path.

        Raises:
            UserError: If the disk is full or not writable.
            Diverged: If the weights are not finite, or an update from them is not: they are not written over good ones.
        """
        if not self._is_sound():
            raise Diverged("the last update led to numbers that are not finite.")
        self.replay.flush()
        self._saved = self.updates
        state: dict[str, Any] = self.run.weights() | {
            "optimiser": self.learner.optimiser.state_dict(),
            "behaviour": self.behaviour.state_dict() | {"kind": self.behaviour.kind},
            "collector": self.collector.state_dict(),
            "replay": self.replay.state_dict(),
            "data": self.data.get_state(),
            "noise": self.noise.get_state(),
            "credit": self.credit,
            "updates": self.updates,
            "schedule": schedule(self.run.config),
            "acting": acting(self.run.config),
        }
        return checkpoint.save(self.run.folder / "checkpoints", self.run.steps, state)

    def _is_sound(self) -> bool:
        """Return whether what has been learned is of use: the weights finite, and the update that follows from them."""
        if self._diverged is not None or not self.run.is_finite:
            return False
        if self._batch is None or self._states is None:
            return True
        sound = self.learner.is_sound(self._batch.to(self.run.device))
        return sound and (self.behaviour.kind == "none" or self.run.actor_critic.is_sound(self._states))

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Let the first Ctrl-C (or SIGTERM) end the loop after the current step; a second one ends it at once.

        Python has signals handled by its main thread alone: a training in another one is ended by whoever started it.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: object) -> None:
            self.interrupted = True
            print("\nStopping and saving; Ctrl-C again stops at once, without saving.", file=sys.stderr, flush=True)
            signal.signal(number, signal.default_int_handler)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Close environments, logs and processes."""
        self.behaviour.close()
        self.pool.close()
        self.logger.close()
        self.lock.close()


def _finite_mean(values: Tensor) -> float:
    """Return the mean of those values that are finite, NaN if none is."""
    return float(values[values.isfinite()].mean())


def _risen_again(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a training whose optimisers all rise to another schedule."""
    behaviour = dict(state["behaviour"])
    if "optimisers" in behaviour:
        behaviour["optimisers"] = {name: risen_again(own) for name, own in behaviour["optimisers"].items()}
    return state | {"optimiser": risen_again(state["optimiser"]), "behaviour": behaviour}


def _remove(paths: set[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
