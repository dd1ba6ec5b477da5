"""The training loop: collect, learn the world, learn to act in it, report."""

import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from worldvae.agents import RandomAgent
from worldvae.errors import Diverged, UserError
from worldvae.evaluation.held_out import held_out_dream
from worldvae.films.open_loop import OpenLoop
from worldvae.runs import checkpoint
from worldvae.runs.settings import RunConfig
from worldvae.training.behaviour import leave_cores_to
from worldvae.training.collector import Finished
from worldvae.training.interrupts import interruptible
from worldvae.training.logger import Logger
from worldvae.training.opening import Opened, open_new, open_saved
from worldvae.training.progress import Progress, say
from worldvae.training.train_state import TrainState
from worldvae.types import Batch, State

FILM_CONTEXT, FILM_HORIZON, FILM_EPISODES = 5, 40, 4


class Trainer:
    """Trains a run: `begin` starts a new one, `resume` goes on from the newest checkpoint of another.

    One decision in every environment is followed by `ratio` updates per decision, so that a run does not depend on
    how fast the machine is: the same seed gives the same run, also across an interruption. Making a trainer lets the
    whole process keep freed memory (`keep_freed_memory`), and torch use no more threads than there are cores to use.

    Args:
        opened: the parts of the training, in the state `state`.
        state: the state in which the training begins.
        logger: writes the run's numbers and films.

    Attributes:
        updates: updates made.
        credit: updates that are due (`TrainState.credit`).
        calibrated: whether the model has been calibrated.
        interrupted: whether Ctrl-C or SIGTERM ended the training.
    """

    def __init__(self, opened: Opened, state: TrainState, logger: Logger) -> None:
        self.opened, self.logger = opened, logger
        self.run, self.pool, self.replay = opened.run, opened.pool, opened.replay
        self.noise, self.data = opened.noise, opened.data
        self.behaviour, self.learner, self.collector = opened.behaviour, opened.learner, opened.collector
        self.credit, self.updates, self.calibrated = state.credit, state.updates, state.calibrated
        self.returns: deque[float] = deque(maxlen=10)
        self.interrupted = False
        self._recent: dict[str, list[Tensor]] = {}
        self._saved = self.updates
        self._batch: Batch | None = None
        self._states: State | None = None
        self._diverged: Diverged | None = None

    @classmethod
    def begin(cls, config: RunConfig, folder: Path, *, new: bool = False) -> "Trainer":
        """Return a trainer that begins a run; if it cannot, nothing of the run is left behind.

        Args:
            config: of the run.
            folder: the run directory.
            new: whether to refuse a folder that exists.

        Raises:
            Taken: If the folder has to be new and is not.
            UserError: If the folder already holds a run or cannot be written, or the environment cannot be made.
        """
        with ExitStack() as stack:
            trainer = cls(*open_new(config, folder, stack, new=new), Logger(folder))
            stack.pop_all()
        return trainer

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
        with ExitStack() as stack:
            opened, state = open_saved(folder, overrides, stack)
            if overrides:
                opened.run.write_config()
            trainer = cls(opened, state, Logger(folder, resumed_at=opened.run.steps))
            stack.pop_all()
        return trainer

    @property
    def finished(self) -> bool:
        """Whether all steps or updates of the config are done."""
        train = self.run.config.train
        return self.run.steps >= train.steps or bool(train.updates and self.updates >= train.updates)

    def train(self, minutes: float | None = None) -> bool:
        """Train until the config's steps are done, `minutes` are over or Ctrl-C is pressed; return whether it is done.

        The run is saved before this returns or raises, also if an environment fails or a bug ends it; except after a
        second Ctrl-C, which does not wait, and after a divergence, which keeps the last checkpoint.

        Raises:
            UserError: If the environment fails.
            Diverged: If weights or gradients are no longer finite.
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

    def interrupt(self) -> None:
        """Let the training end, and be saved, after the current step."""
        self.interrupted = True

    def _train(self, minutes: float | None) -> None:
        config = self.run.config
        uniform = RandomAgent(self.pool.action_layout, config.train.persistence)
        explorer = uniform if config.train.explore == uniform.name else self.run.make_agent(config.train.explore)
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        repeat = config.env.action_repeat
        with (
            interruptible(self.interrupt),
            leave_cores_to(self.behaviour),
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
        """Save the run before `error` ends it; a resumed run begins new episodes, as the state of these is unknown."""
        self.collector.abandon()
        try:
            outcome = f"The run was saved: {self.save()}."
        except Exception as failure:
            outcome = f"The run could not be saved: {failure} {self._last_saved()}"
        if isinstance(error, UserError):
            raise UserError(f"{error} {outcome}") from error
        say(f"{type(error).__name__} ends the training. {outcome}")

    def _last_saved(self) -> str:
        """Return a sentence that names the last checkpoint, for when the present state is not saved."""
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
        if not self.calibrated:
            seen = self.replay.sample(64, 16, self.data).to(self.run.device)  # from all over the replay
            self.run.model.calibrate(seen.observation, seen.reward)
            self.calibrated = True
        self.credit += decisions * train.ratio
        while self.credit >= 1 and not (train.updates and self.updates >= train.updates):
            self.credit -= 1
            self._update()

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
        if self.updates % train.film_every == 0 and self.run.model.shows:
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
        state = self.opened.state(credit=self.credit, updates=self.updates, calibrated=self.calibrated)
        content = self.run.weights() | state.to_checkpoint()
        self._saved = self.updates
        return checkpoint.save(self.run.folder / "checkpoints", self.run.steps, content)

    def _is_sound(self) -> bool:
        """Return whether the weights are finite, and the gradients of an update from them."""
        if self._diverged is not None or not self.run.is_finite:
            return False
        if self._batch is None or self._states is None:
            return True
        sound = self.learner.is_sound(self._batch.to(self.run.device))
        return sound and (self.behaviour.kind == "none" or self.run.actor_critic.is_sound(self._states))

    def close(self) -> None:
        """Close environments, logs and processes, and give the folder free."""
        self.logger.close()
        self.opened.close()


def _finite_mean(values: Tensor) -> float:
    """Return the mean of those values that are finite, NaN if none is."""
    return float(values[values.isfinite()].mean())
