"""Environments that change their arguments or reuse their outputs, that cannot end, or whose rewards are too large."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from worldvae.envs import make, wrap
from worldvae.errors import UserError


class Pliable(gym.Env):
    """Changes its action as it is told, remembers what it received, and returns its own memory as the observation."""

    def __init__(self, action: spaces.Space | None = None, observation: spaces.Space | None = None) -> None:
        self.action_space = action or spaces.Box(-4.0, 4.0, (2,))
        self.observation_space = observation or spaces.Box(-1e9, 1e9, (1,))
        self.memory = np.zeros(self.observation_space.shape, self.observation_space.dtype)
        self.given: list[Any] = []
        self.spoil: Callable[[Any], Any] = lambda action: None
        self.reward: Any = 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.memory[...] = 0
        return self.memory, {}

    def step(self, action: Any) -> Any:
        self.given.append(np.array(action) if isinstance(action, np.ndarray) else dict(action))
        self.spoil(action)
        self.memory[...] = 1
        return self.memory, self.reward, False, False, {}


def double(action: Any) -> None:
    action *= 2.0


def test_each_repeat_is_given_the_action_as_it_was() -> None:
    inner = Pliable()
    inner.spoil = double
    env = wrap(inner, obs="state", action_repeat=3)
    env.reset(seed=0)
    env.step(np.array([0.25, -0.5], np.float32))
    np.testing.assert_array_equal(inner.given, [[1.0, -2.0]] * 3)


def test_each_repeat_is_given_a_dict_of_its_own() -> None:
    inner = Pliable(spaces.Dict({"move": spaces.Discrete(2), "use": spaces.Box(-1, 1, (1,))}))
    inner.spoil = lambda action: (double(action["use"]), action.pop("move"))
    env = wrap(inner, obs="state", action_repeat=3)
    env.reset(seed=0)
    env.step(np.array([0.5, 0, 1], np.float32))
    assert [(given["move"], given["use"].shape) for given in inner.given] == [(1, (1,))] * 3


def test_an_environment_may_change_its_arguments() -> None:
    """An environment that renders is created twice."""

    class Popping(gym.Env):
        metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
        observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

        def __init__(self, settings: Any, render_mode: str | None = None) -> None:
            self.wind, self.render_mode = settings.pop("wind"), render_mode

    gym.register("Popping-v0", Popping)
    given = {"wind": 3.0}
    try:
        env = make("Popping-v0", settings=given)
    finally:
        del gym.registry["Popping-v0"]
    assert (env.env.unwrapped.wind, given) == (3.0, {"wind": 3.0})


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (3, 16, 16), np.uint8),
        spaces.Box(0, 255, (16, 16), np.uint8),
        spaces.Box(0, 255, (16, 16, 1), np.uint8),
        spaces.Box(0, 255, (16, 16, 3), np.uint8),
        spaces.Box(0, 1, (1, 16, 16), np.bool_),
        spaces.Box(-99, 99, (5,), np.float32),
        spaces.Box(-99, 99, (2, 3), np.float64),
        spaces.MultiBinary(3),
    ],
)
def test_returned_observations_do_not_change_later(space: spaces.Space) -> None:
    inner = Pliable(observation=space)
    env = wrap(inner, size=(16, 16))
    shown, _ = env.reset(seed=0)
    kept = {key: value.copy() for key, value in shown.items()}
    env.step(np.zeros(2, np.float32))
    for key, value in shown.items():
        assert not np.shares_memory(value, inner.memory)
        np.testing.assert_array_equal(value, kept[key])


class Panic(BaseException):
    """Raised by compiled engines: not an Exception."""


@pytest.mark.parametrize("method", ["reset", "step", "render"])
@pytest.mark.parametrize(("error", "words"), [(SystemExit(0), "SystemExit: 0"), (Panic("lost"), "Panic: lost")])
def test_what_would_end_the_process_is_told_in_one_sentence(
    method: str, error: BaseException, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = Pliable()
    inner.render_mode = "rgb_array"
    env = wrap(inner, obs="state")
    env.reset(seed=0)

    def end(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(inner, method, end)
    calls = {"reset": env.reset, "step": lambda: env.step(np.zeros(2, np.float32)), "render": env.render}
    with pytest.raises(UserError, match=rf"Pliable, at .*{method}\(\) raised {words}\.$"):
        calls[method]()


def test_ctrl_c_is_not_converted() -> None:
    inner = Pliable()

    def interrupt(action: Any) -> None:
        raise KeyboardInterrupt

    inner.spoil = interrupt
    env = wrap(inner, obs="state")
    env.reset(seed=0)
    with pytest.raises(KeyboardInterrupt):
        env.step(np.zeros(2, np.float32))


def test_an_environment_that_cannot_be_closed_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Pliable()
    env = wrap(inner, obs="state")
    monkeypatch.setattr(inner, "close", lambda: exit(3))
    with pytest.warns(UserWarning, match="Pliable could not be closed: SystemExit: 3"):
        env.close()


@pytest.mark.parametrize(("reward", "repeat"), [(1e300, 1), (-1e39, 1), (np.float64(3e38), 2)])
def test_rewards_beyond_float32_are_named(reward: float, repeat: int) -> None:
    inner = Pliable()
    env = wrap(inner, obs="state", action_repeat=repeat)
    env.reset(seed=0)
    inner.reward = reward
    with pytest.raises(UserError, match="too large for float32"):
        env.step(np.zeros(2, np.float32))


def test_the_largest_rewards_of_float32_are_taken() -> None:
    inner = Pliable()
    env = wrap(inner, obs="state")
    env.reset(seed=0)
    inner.reward = -np.finfo(np.float32).max
    assert np.isfinite(np.float32(env.step(np.zeros(2, np.float32))[1]))


@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*imum value is")
@pytest.mark.parametrize("obs", ["auto", "state", "both"])
@pytest.mark.parametrize("id", ["CartPole-v1", "Taxi-v4", "worldvae/Tiny-v0", "worldvae/LinearGaussian-v0"])
def test_gymnasiums_own_checker_is_content(id: str, obs: str) -> None:
    env = make(id, obs=obs, size=(16, 16)) if id != "worldvae/LinearGaussian-v0" else make(id, obs="state")
    check_env(env)
    assert env.np_random_seed is not None
    env.close()
