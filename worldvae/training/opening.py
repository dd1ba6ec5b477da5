"""Opening a training: all its parts, for a new run or from a checkpoint."""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import torch

from worldvae.data.replay import Replay
from worldvae.envs import EnvPool
from worldvae.errors import UserError
from worldvae.runs.run import Run, check_folder, create, load_with_state
from worldvae.runs.settings import RunConfig
from worldvae.system.allocator import keep_freed_memory
from worldvae.system.cores import limit_threads
from worldvae.system.lock import Lock, claim
from worldvae.training.behaviour import Behaviour, make_behaviour
from worldvae.training.collector import Collector
from worldvae.training.learner import Learner
from worldvae.training.train_state import TrainState, acting, schedule

NEW_FILES = ("config.yaml", "metrics.jsonl", "replay")
"""The files that a trainer writes into the folder of a new run before its first step."""


@dataclass(frozen=True)
class Opened:
    """The parts of a training.

    Attributes:
        lock: holds the folder of the run.
        run: config, world model and actor-critic.
        pool: the environments.
        noise: generator on the run's device, which acting and learning draw from.
        data: generator that picks rows of the replay.
        behaviour: learns the actor and the critic.
        replay: the rows collected.
        learner: learns the world model.
        collector: plays in the environments.
    """

    lock: Lock
    run: Run
    pool: EnvPool
    noise: torch.Generator
    data: torch.Generator
    behaviour: Behaviour
    replay: Replay
    learner: Learner
    collector: Collector

    def state(self, *, credit: float, updates: int, calibrated: bool) -> TrainState:
        """Return the present state of the training, once the rows of the replay are on disk.

        Args:
            credit: updates that are due.
            updates: updates made.
            calibrated: whether the model has been calibrated.

        Raises:
            Diverged: If the weights of behaviour are no longer finite.
        """
        self.replay.flush()
        return TrainState(
            credit=credit,
            updates=updates,
            calibrated=calibrated,
            noise=self.noise.get_state(),
            data=self.data.get_state(),
            schedule=schedule(self.run.config),
            acting=acting(self.run.config),
            optimiser=self.learner.optimiser.state_dict(),
            behaviour=self.behaviour.state_dict() | {"kind": self.behaviour.kind},
            collector=self.collector.state_dict(),
            replay=self.replay.state_dict(),
        )

    def close(self) -> None:
        """Close the environments and the processes, and give the folder free."""
        self.behaviour.close()
        self.pool.close()
        self.lock.close()


def open_new(config: RunConfig, folder: Path, stack: ExitStack, *, new: bool) -> tuple[Opened, TrainState]:
    """Begin a run in `folder`; return the parts of its training, and its first state.

    The folder is locked before anything in it is read. If `stack` is unwound, no run has begun: it removes the files
    that this function wrote, and the folder is free for the next attempt.

    Args:
        config: of the run.
        folder: the run directory.
        stack: closes the parts and removes the files, if it is unwound.
        new: whether to refuse a folder that exists.

    Raises:
        Taken: If the folder has to be new and is not.
        UserError: If the folder already holds a run or cannot be written, or something cannot be made.
    """
    lock = claim(folder, stack, new=new)
    pool = _open_pool(config, stack)
    there = {path for path in (folder / name for name in NEW_FILES) if path.exists()}
    run = create(folder, config, pool.observation_layout, pool.action_layout)
    stack.callback(_remove, {folder / name for name in NEW_FILES} - there)
    state = TrainState.zero(run.config, run.device)
    return _open_rest(lock, run, pool, state, stack), state


def open_saved(folder: Path, overrides: Sequence[str], stack: ExitStack) -> tuple[Opened, TrainState]:
    """Return the parts of the training of the run in `folder`, as of its newest checkpoint, and its state.

    Nothing in the folder is changed.

    Args:
        folder: the run directory.
        overrides: settings that change from here on.
        stack: closes the parts, if it is unwound.

    Raises:
        UserError: If there is no run, another version wrote it, a setting cannot change any more, or its config was
            edited to something that does not fit.
    """
    check_folder(folder)
    lock = stack.enter_context(closing(Lock(folder)))
    run, content = load_with_state(folder, overrides=overrides, resuming=True)
    if run.config.train.envs != (lanes := int(content["replay"]["lanes"])):
        raise UserError(
            f"{folder} was trained with train.envs={lanes}, and its config.yaml now says "
            f"{run.config.train.envs}: undo what was edited, or train a new run."
        )
    pool = _open_pool(run.config, stack)
    run.check_layouts(pool.observation_layout, pool.action_layout)
    state = TrainState.from_checkpoint(content).under(run.config)
    return _open_rest(lock, run, pool, state, stack), state


def _open_pool(config: RunConfig, stack: ExitStack) -> EnvPool:
    keep_freed_memory()
    limit_threads()
    return stack.enter_context(EnvPool([config.env] * config.train.envs, config.train.mode))


def _open_rest(lock: Lock, run: Run, pool: EnvPool, state: TrainState, stack: ExitStack) -> Opened:
    """Make the other parts of a training, and load `state` into them."""
    train = run.config.train
    noise = torch.Generator(run.device).set_state(state.noise)
    data = torch.Generator().set_state(state.data)
    behaviour = stack.enter_context(closing(make_behaviour(run, noise)))
    if state.behaviour is not None and behaviour.kind != (kind := state.behaviour["kind"]):
        raise UserError(
            f"{run.folder} was trained with train.behaviour={kind} and would now go on with {behaviour.kind}: "
            "undo what was edited, or train a new run."
        )
    path = run.folder / "replay"
    layouts = (pool.observation_layout, pool.action_layout)
    replay = Replay.open(path, state.replay) if state.replay else Replay(path, *layouts, train.envs, train.replay_bytes)
    learner = Learner(run.model, run.config.optimiser)
    collector = Collector(pool, replay, run.config.seed)
    if state.optimiser is not None:
        learner.optimiser.load_state_dict(state.optimiser)
    if state.behaviour is not None:
        behaviour.load_state_dict(state.behaviour)
    if state.collector is not None:
        collector.load_state_dict(state.collector, type(run.model.initial(1)))
    return Opened(lock, run, pool, noise, data, behaviour, replay, learner, collector)


def _remove(paths: set[Path]) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
