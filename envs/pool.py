"""Many environments side by side, in this process or in others."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from types import TracebackType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.envs.buffers import Buffers, check_layouts, reset_rows, step_rows
from worldvae.envs.make import EnvConfig, make_from
from worldvae.envs.worker import Maker, Worker, look_elsewhere, look_here
from worldvae.envs.world_env import WorldEnv
from worldvae.errors import Diverged, UserError, near_miss
from worldvae.system.child import start_method
from worldvae.system.cores import usable_cores
from worldvae.types import Observation, TensorTree


@dataclass(frozen=True)
class Step(TensorTree):
    """The result of a step, a row per environment; where `done`, `observation` is the last one of the episode."""

    observation: Observation
    reward: Float[Tensor, "*batch"]
    terminated: Bool[Tensor, "*batch"]
    truncated: Bool[Tensor, "*batch"]

    @property
    def done(self) -> Bool[Tensor, "*batch"]:
        """Where an episode has ended, by termination or truncation."""
        return self.terminated | self.truncated


class EnvPool:
    """N environments that are stepped together and reset one by one, never on their own.

    Nothing is reset automatically, so each step returns the observation that the episode really ended with; the
    caller then resets those rows by a mask. Sync and async give the same numbers. All returned tensors are copies.

    Gymnasium's vector classes always step every environment; a pool can leave some out (`active`), which an
    evaluation needs whose episodes end one after the other, and plays several environments per process.

    Args:
        makers: Configs, or functions that make a `WorldEnv` (one per environment).
        mode: "sync" plays in this process, "async" in worker processes. Where a config says `alone`, every environment
            plays in a worker process of its own, and this process holds none, in every mode.
        workers: Number of processes in async mode; None takes one per CPU core, at most one per environment.

    Example:
        >>> with EnvPool([EnvConfig("Pendulum-v1")] * 4) as pool:
        ...     observation = pool.reset(seeds=range(4))
        ...     step = pool.step(torch.zeros(4, 1))
        ...     observation = pool.reset(seeds=range(4, 8), mask=step.done)

    Raises:
        UserError: If an environment cannot be made, or they do not look alike.
    """

    def __init__(self, makers: Sequence[EnvConfig | Maker], mode: str = "sync", workers: int | None = None) -> None:
        if mode not in ("sync", "async"):
            raise UserError(f"mode={mode!r} is not sync or async.{near_miss(mode, ('sync', 'async'))}")
        if not makers:
            raise UserError("a pool needs at least one environment.")
        alone = any(isinstance(maker, EnvConfig) and maker.alone for maker in makers)
        functions = [_function(maker) for maker in makers]
        self.mode, self.num_envs = "async" if alone else mode, len(functions)
        self._envs: list[WorldEnv] = []
        self._workers: list[Worker] = []
        self._done = np.ones(self.num_envs, np.bool_)
        self._playing: np.ndarray | None = None
        with ExitStack() as opened:  # closes the environments made so far, if one fails
            opened.callback(self.close)
            if self.mode == "sync":
                self._fill(functions)
            else:
                self._hire(functions, self.num_envs if alone else workers or usable_cores(), alone)
            opened.pop_all()

    def _fill(self, functions: Sequence[Maker]) -> None:
        """Make the environments in this process."""
        for make in functions:
            self._envs.append(make())
        first = self._envs[0]
        self.id, self.observation_layout, self.action_layout = first.id, first.observation_layout, first.action_layout
        check_layouts(self._envs, self.observation_layout, self.action_layout)
        self._buffers = Buffers.allocate(self.num_envs, self.observation_layout, self.action_layout, None)

    def _hire(self, functions: Sequence[Maker], workers: int, alone: bool) -> None:
        """Make the environments in processes; their layouts are read off an environment made for that purpose."""
        look = look_elsewhere if alone else look_here
        self.id, self.observation_layout, self.action_layout = look(functions[0])
        layouts = (self.observation_layout, self.action_layout)
        self._buffers = Buffers.allocate(self.num_envs, *layouts, start_method())
        edges = np.linspace(0, self.num_envs, min(self.num_envs, workers) + 1).astype(int).tolist()
        for start, end in pairwise(edges):
            self._workers.append(Worker(functions[start:end], self._buffers, start, layouts))
        self._collect()

    def reset(self, seeds: Sequence[int], mask: Tensor | np.ndarray | None = None) -> Observation:
        """Begin new episodes where `mask` (everywhere if None) and return the current observation of every row.

        Args:
            seeds: One seed per environment; only those of the masked rows are used.
            mask: Bool [N]; the other rows keep their episode and their observation.

        Raises:
            UserError: If an environment fails.
        """
        chosen = np.ones(self.num_envs, np.bool_) if mask is None else _flags(mask, self.num_envs)
        assert self._playing is None, "a step is under way: receive it first"
        assert len(seeds) == self.num_envs, f"got {len(seeds)} seeds for {self.num_envs} environments"
        self._done |= chosen
        masked = [int(seed) if use else None for seed, use in zip(seeds, chosen, strict=True)]
        self._ask("reset", masked)
        self._run(reset_rows, masked)
        self._done &= ~chosen
        return self._observation()

    def step(self, actions: Tensor | np.ndarray, active: Tensor | np.ndarray | None = None) -> Step:
        """Play one action vector in each active environment: `send`, and at once `receive`."""
        self.send(actions, active)
        return self.receive()

    def send(self, actions: Tensor | np.ndarray, active: Tensor | np.ndarray | None = None) -> None:
        """Begin to play one action vector in each active environment; `receive` returns the result.

        In async mode the environments play while the caller goes on; in sync mode they play in `receive`.

        Args:
            actions: Float32 [N, action].
            active: Bool [N], all if None. The others are not stepped: their rows keep the last observation, with
                reward 0 and both flags False.

        Raises:
            UserError: If an environment process has died.
            Diverged: If an action is not finite.
        """
        assert self._playing is None, "a step is under way: receive it first"
        plays = np.ones(self.num_envs, np.bool_) if active is None else _flags(active, self.num_envs)
        assert not (self._done & plays).any(), f"rows {np.flatnonzero(self._done & plays)} are done: reset them first"
        values = actions.detach().cpu().numpy() if isinstance(actions, Tensor) else actions
        assert values.shape == self._buffers.action.shape, f"{values.shape} is not {self._buffers.action.shape}"
        if not np.isfinite(values).all():
            raise Diverged(f"actions for {self.id} are not finite numbers: what chose them has diverged.")
        self._buffers.action[:] = values
        self._playing = plays
        self._ask("step", plays.tolist())

    def receive(self) -> Step:
        """Wait for the actions sent, and return the result.

        Raises:
            UserError: If an environment fails.
        """
        assert self._playing is not None, "no step is under way: send actions first"
        plays, self._playing = self._playing, None
        before, self._done = self._done, self._done | plays  # after a failure those rows have to be reset
        self._run(step_rows, plays.tolist())
        terminated, truncated = self._buffers.terminated.copy(), self._buffers.truncated.copy()
        self._done = np.where(plays, terminated | truncated, before)
        return Step(
            observation=self._observation(),
            reward=torch.from_numpy(self._buffers.reward.copy()),
            terminated=torch.from_numpy(terminated),
            truncated=torch.from_numpy(truncated),
        )

    def close(self) -> None:
        """Close all environments and end their processes; a closed pool can be closed again."""
        for env in self._envs:
            env.close()
        for worker in self._workers:
            worker.close()
        self._envs, self._workers = [], []

    def _ask(self, task: str, rows: Sequence[Any]) -> None:
        """Let the workers, if there are any, begin with a task."""
        for worker in self._workers:
            worker.send(task, rows[worker.rows])

    def _run(self, function: Callable[..., None], rows: Sequence[Any]) -> None:
        """Do the task in this process, or wait for the workers that do it."""
        if self.mode == "sync":
            function(self._envs, self._buffers, 0, rows)
        self._collect()

    def _collect(self) -> None:
        """Wait for all workers, also when one reports an error: an answer left in a pipe would be read too late."""
        errors: list[Exception] = []
        for worker in self._workers:
            try:
                worker.wait()
            except (UserError, RuntimeError) as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _observation(self) -> Observation:
        pixels, vector = self._buffers.pixels, self._buffers.vector
        return Observation(
            pixels=None if pixels is None else torch.from_numpy(pixels.copy()),
            vector=None if vector is None else torch.from_numpy(vector.copy()),
        )

    def __len__(self) -> int:
        return self.num_envs

    def __enter__(self) -> "EnvPool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"EnvPool({self.num_envs} × {self.id}, mode={self.mode!r})"


def _function(maker: EnvConfig | Maker) -> Maker:
    if isinstance(maker, EnvConfig):
        return partial(make_from, maker)
    if not callable(maker):
        raise UserError(f"a pool takes EnvConfigs, or functions that make a WorldEnv, and was given {maker!r}.")
    return maker


def _flags(mask: Tensor | np.ndarray, rows: int) -> np.ndarray:
    flags = mask.cpu().numpy() if isinstance(mask, Tensor) else mask
    assert flags.shape == (rows,) and flags.dtype == np.bool_, (
        f"got {flags.dtype} {flags.shape}, expected bool ({rows},)"
    )
    return flags
