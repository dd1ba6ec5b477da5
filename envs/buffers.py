"""The arrays through which environments and their caller exchange rows: one row per environment."""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np

from worldvae.envs.world_env import WorldEnv
from worldvae.errors import UserError
from worldvae.types import ActionLayout, ObservationLayout


@dataclass(frozen=True)
class Buffers:
    """Arrays with one row per environment; the caller writes `action`, the environments write the rest."""

    action: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    pixels: np.ndarray | None
    vector: np.ndarray | None

    @classmethod
    def allocate(
        cls, rows: int, observation: ObservationLayout, action: ActionLayout, context: BaseContext | None
    ) -> "Buffers":
        """Return zeroed buffers, in memory that processes started from `context` share (if one is given)."""

        def zeros(dtype: Any, *shape: int) -> np.ndarray:
            if context is None:
                return np.zeros((rows, *shape), dtype)
            size = rows * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            shared: np.ndarray = np.frombuffer(memoryview(context.RawArray(ctypes.c_byte, size)), dtype)
            return shared.reshape(rows, *shape)

        return cls(
            action=zeros(np.float32, action.size),
            reward=zeros(np.float32),
            terminated=zeros(np.bool_),
            truncated=zeros(np.bool_),
            pixels=None if observation.pixels is None else zeros(np.uint8, *observation.pixels),
            vector=None if observation.vector is None else zeros(np.float32, observation.vector),
        )


def reset_rows(envs: Sequence[WorldEnv], buffers: Buffers, first: int, seeds: Sequence[int | None]) -> None:
    """Reset `envs`, which own the rows from `first` on, where there is a seed."""
    for row, (env, seed) in enumerate(zip(envs, seeds, strict=True), first):
        if seed is not None:
            observation, _ = env.reset(seed=seed)
            _show(buffers, row, observation)


def step_rows(envs: Sequence[WorldEnv], buffers: Buffers, first: int, active: Sequence[bool]) -> None:
    """Step the active ones of `envs`, which own the rows from `first` on, with the actions in the buffers."""
    for row, (env, plays) in enumerate(zip(envs, active, strict=True), first):
        if plays:
            observation, reward, terminated, truncated, _ = env.step(buffers.action[row])
            _show(buffers, row, observation)
        else:
            reward, terminated, truncated = 0.0, False, False
        buffers.reward[row], buffers.terminated[row], buffers.truncated[row] = reward, terminated, truncated


def check_layouts(envs: Sequence[WorldEnv], observation: ObservationLayout, action: ActionLayout) -> None:
    """Check that all environments of a pool look alike.

    Raises:
        UserError: If one does not.
    """
    for env in envs:
        if (env.observation_layout, env.action_layout) != (observation, action):
            raise UserError(
                f"the environments of a pool must look alike: {env.id} has {env.observation_layout} and "
                f"{env.action_layout}, the first one {observation} and {action}."
            )


def _show(buffers: Buffers, row: int, observation: dict[str, np.ndarray]) -> None:
    if buffers.pixels is not None:
        buffers.pixels[row] = observation["pixels"]
    if buffers.vector is not None:
        buffers.vector[row] = observation["vector"]
