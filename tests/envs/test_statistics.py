"""Wrappers with running statistics: found at every level, and reported in one sentence."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces, wrappers

from worldvae.envs import EnvConfig, make_from, wrap
from worldvae.errors import UserError


class Plain(gym.Env):
    observation_space, action_space = spaces.Box(-1, 1, (2,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), 1.0, False, False, {}


class RunningMeanStd:
    """As in several libraries."""


class Own(gym.Wrapper):
    """A wrapper of another library."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.statistics = RunningMeanStd()


class Holder(Plain):
    """An environment that contains another one, but is not a wrapper."""

    def __init__(self, env: gym.Env) -> None:
        self.inner = env


def hidden() -> gym.Env:
    return wrappers.ClipReward(wrappers.NormalizeReward(Plain()), -1, 1)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: wrappers.NormalizeObservation(Plain()), "NormalizeObservation"),
        (hidden, "NormalizeReward"),
        (lambda: Own(Plain()), "Own"),
        (lambda: Holder(hidden()), "NormalizeReward"),
    ],
)
def test_running_statistics_are_refused(make: Any, name: str) -> None:
    with pytest.raises(UserError, match=rf" contains {name}, which scales by running statistics"):
        wrap(make())
    gym.register("Statistics-v0", make)
    try:
        with pytest.raises(UserError, match=rf"Statistics-v0 contains {name}, .*leave it out"):
            make_from(EnvConfig("Statistics-v0"))
    finally:
        del gym.registry["Statistics-v0"]


def test_statistics_that_do_not_run_are_taken() -> None:
    env = wrappers.NormalizeObservation(Plain())
    env.update_running_mean = False
    assert wrap(env).observation_layout.vector == 2
    assert wrap(wrappers.RecordEpisodeStatistics(wrappers.ClipReward(Plain(), -1, 1))).observation_layout.vector == 2
