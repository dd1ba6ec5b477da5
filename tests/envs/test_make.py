"""All environments behave alike: observations, repeats, limits, seeds, and a one-sentence error for each fault."""

import signal
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from omegaconf import OmegaConf

from worldvae.envs import EnvConfig, WorldEnv, make, make_from, wrap
from worldvae.errors import UserError
from worldvae.types import ObservationLayout

CLASSIC = ["CartPole-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Acrobot-v1"]
TOY = ["FrozenLake-v1", "FrozenLake8x8-v1", "Taxi-v4", "Blackjack-v1", "CliffWalking-v1", "CliffWalkingSlippery-v1"]
OURS = ["worldvae/Tiny-v0", "worldvae/TinyDiscrete-v0"]


class Scripted(gym.Env):
    """Counts its steps; each returned value can be replaced."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, space: spaces.Space, observations: Any = None, action: spaces.Space | None = None) -> None:
        self.observation_space = space
        self.action_space = spaces.Discrete(2) if action is None else action
        self.observations = observations
        self.render_mode, self.rendered, self.count, self.last_action = "rgb_array", 0, 0, None
        self.end, self.rewards, self.failing = 10_000, {}, {}

    def observe(self) -> Any:
        return self.observations(self.count) if callable(self.observations) else self.observation_space.sample()

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        if "reset" in self.failing:
            raise RuntimeError("the engine would\nnot start")
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.count, self.last_action = self.count + 1, action
        if self.failing.get("step") == self.count:
            raise ZeroDivisionError("division by zero")
        return self.observe(), self.rewards.get(self.count, 1.0), self.count >= self.end, False, {}

    def render(self) -> Any:
        self.rendered += 1
        return np.zeros((40, 60, 3), np.uint8)


def vector_env(**kwargs: Any) -> Scripted:
    return Scripted(spaces.Box(-9, 9, (2,), np.float32), lambda t: np.full(2, t % 9, np.float32), **kwargs)


def play(env: WorldEnv, steps: int, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    rows = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(rng.uniform(-1, 1, env.action_layout.size).astype("f"))
        rows.append((observation, reward, terminated, truncated))
        if terminated or truncated:
            rows.append(env.reset(seed=seed + 1)[0])
    return rows


@pytest.mark.parametrize("id", CLASSIC + TOY + OURS)
@pytest.mark.parametrize("obs", ["auto", "state", "both"])
def test_every_environment_resets_and_steps(id: str, obs: str) -> None:
    env = make(id, obs=obs, size=(24, 32))
    pixels, vector = env.observation_layout.pixels, env.observation_layout.vector
    assert pixels == (None if obs == "state" else (3, 24, 32))
    assert (vector is None) == (obs == "auto")
    for row in play(env, 4):
        observation = row if isinstance(row, dict) else row[0]
        assert env.observation_space.contains(observation)
    env.close()


@pytest.mark.parametrize("id", ["CartPole-v1", "Pendulum-v1", "FrozenLake-v1", *OURS])
def test_the_same_seed_gives_the_same_bits(id: str) -> None:
    one, other = (play(make(id, obs="both", size=(16, 16)), 25, seed=3) for _ in range(2))
    np.testing.assert_equal(one, other)
    with pytest.raises(AssertionError):
        np.testing.assert_equal(one, play(make(id, obs="both", size=(16, 16)), 25, seed=4))


def test_a_nested_dict_of_everything() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (40, 30, 3), np.uint8),
            "body": spaces.Dict({"joints": spaces.Box(-1, 1, (2, 2)), "mode": spaces.Discrete(3, start=5)}),
            "depth": spaces.Box(0, 1, (20, 20), np.float32),
            "flags": spaces.Tuple([spaces.MultiBinary(2), spaces.MultiDiscrete([2, 3])]),
        }
    )
    value = {
        "camera": np.full((40, 30, 3), 7, np.uint8),
        "body": {"joints": np.array([[0.1, 0.2], [0.3, 0.4]], np.float32), "mode": np.int64(6)},
        "depth": np.full((20, 20), 0.2, np.float32),
        "flags": (np.array([1, 0], np.int8), np.array([1, 0])),
    }
    env = wrap(Scripted(space, lambda _: value), size=(10, 12))
    assert env.observation_layout == ObservationLayout(pixels=(4, 10, 12), vector=4 + 3 + 2 + 5)
    observation, _ = env.reset(seed=0)
    np.testing.assert_allclose(observation["vector"], [0.1, 0.2, 0.3, 0.4, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0])
    assert observation["pixels"][:, 0, 0].tolist() == [7, 7, 7, 51]


def test_text_is_left_out_with_a_warning() -> None:
    space = spaces.Dict({"mission": spaces.Text(9), "place": spaces.Discrete(2)})
    with pytest.warns(UserWarning, match="mission"):
        env = wrap(Scripted(space))
    assert env.observation_layout == ObservationLayout(vector=2)
    assert len(env.ignored) == 1
    with pytest.raises(UserError, match="cannot be read"):
        wrap(Scripted(spaces.Text(9)))


def test_an_image_observation_is_not_rendered_again() -> None:
    inner = Scripted(spaces.Box(0, 255, (40, 60, 3), np.uint8), lambda _: np.full((40, 60, 3), 9, np.uint8))
    for obs in ("auto", "pixels"):
        env = wrap(inner, obs=obs, size=(8, 8))
        assert (env.reset(seed=0)[0]["pixels"] == 9).all()
        env.step(np.zeros(2, np.float32))
    assert inner.rendered == 0
    with pytest.raises(UserError, match="only images"):
        wrap(inner, obs="state")


def test_a_user_environment_that_cannot_render_is_shown_as_its_vector() -> None:
    inner = vector_env()
    inner.render_mode = None
    assert wrap(inner).observation_layout == ObservationLayout(vector=2)
    with pytest.raises(UserError, match="render_mode='rgb_array'"):
        wrap(inner, obs="pixels")


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([[2, 3], [4, 5]]),
        spaces.Tuple([spaces.Discrete(2), spaces.Box(-3, 3, (2,))]),
        spaces.Dict({"move": spaces.Box(0, 1, (2, 2)), "use": spaces.MultiBinary(3), "which": spaces.Discrete(4)}),
    ],
)
def test_actions_of_any_space_reach_the_environment(space: spaces.Space) -> None:
    inner = vector_env(action=space)
    env = wrap(inner, obs="state")
    env.reset(seed=0)
    space.seed(1)
    for _ in range(5):
        env.step(env.action_space.sample())
        assert space.contains(inner.last_action)


def test_repeated_actions_sum_rewards_and_stop_at_the_end() -> None:
    inner = vector_env()
    inner.end, inner.rewards = 5, {1: 1.0, 2: 2.0, 3: 4.0, 4: 8.0, 5: 16.0}
    env = wrap(inner, obs="state", action_repeat=3)
    env.reset(seed=0)
    action = np.zeros(2, np.float32)
    observation, reward, terminated, truncated, _ = env.step(action)
    assert (reward, terminated, truncated, observation["vector"][0]) == (7.0, False, False, 3.0)
    observation, reward, terminated, truncated, _ = env.step(action)
    assert (reward, terminated, truncated, observation["vector"][0]) == (24.0, True, False, 5.0)
    with pytest.raises(AssertionError, match="reset"):
        env.step(action)


def test_a_time_limit_truncates_and_never_terminates() -> None:
    env = wrap(vector_env(), obs="state", time_limit=4, action_repeat=3)
    env.reset(seed=0)
    action = np.zeros(2, np.float32)
    assert env.step(action)[2:4] == (False, False)
    assert env.step(action)[1:4] == (1.0, False, True)  # the limit counts environment steps: one was left
    inner = vector_env()
    inner.end = 2
    env = wrap(inner, obs="state", time_limit=4)
    env.reset(seed=0)
    env.step(action)
    assert env.step(action)[2:4] == (True, False)


def test_where_time_limits_come_from() -> None:
    assert (make("Pendulum-v1", obs="state").time_limit, make("Pendulum-v1").has_own_limit) == (200, True)
    cliff = make("CliffWalking-v1", obs="state")
    assert (cliff.time_limit, cliff.has_own_limit) == (1000, False)
    longer = make("Pendulum-v1", obs="state", time_limit=250)
    longer.reset(seed=0)
    flags = [longer.step(np.zeros(1, np.float32))[3] for _ in range(250)]
    assert flags == [False] * 249 + [True]


@pytest.mark.parametrize(
    ("space", "value", "words"),
    [
        (spaces.Box(-9, 9, (2,)), np.array([1, np.nan], np.float32), "NaN"),
        (spaces.Box(-9, 9, (2,)), np.array([1, np.inf], np.float32), "infinity"),
        (spaces.Box(-9, 9, (2,), np.float64), np.array([1, 1e300]), "too large"),
        (spaces.Box(-9, 9, (2,)), np.zeros(3, np.float32), r"shape \(3,\), expected \(2,\)"),
        (spaces.Box(-9, 9, (2,)), "left", "expected numbers"),
        (spaces.Box(-9, 9, (2,)), [[1], [1, 2]], "not an array"),
        (spaces.Discrete(3, start=1), 0, "not in"),
        (spaces.Dict({"a": spaces.Discrete(2)}), {"b": 1}, "missing"),
        (spaces.Box(0, 255, (9, 9, 3), np.uint8), np.zeros((9, 9, 3)), "type float64, expected uint8"),
    ],
)
def test_a_wrong_observation_is_named(space: spaces.Space, value: Any, words: str) -> None:
    def observe(step: int) -> Any:
        return value if step == 2 else space.sample()

    env = wrap(
        Scripted(space, observe), obs="auto" if isinstance(space, spaces.Box) and space.shape == (9, 9, 3) else "state"
    )
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    with pytest.raises(UserError, match=f"Scripted, at step 2 of an episode: .*{words}"):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(("reward", "words"), [(np.nan, "nan"), (-np.inf, "inf"), (None, "None"), ("1", "'1'")])
def test_a_wrong_reward_is_named(reward: Any, words: str) -> None:
    inner = vector_env()
    inner.rewards = {3: reward}
    env = wrap(inner, obs="state", action_repeat=4)
    env.reset(seed=0)
    with pytest.raises(UserError, match=f"step 3 of an episode: the reward is .*{words}"):
        env.step(np.zeros(2, np.float32))


def test_what_an_environment_raises_is_told_in_one_sentence() -> None:
    inner = vector_env()
    env = wrap(inner, obs="state")
    inner.failing = {"step": 2}
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    with pytest.raises(UserError, match=r"at step 2 .*step\(\) raised ZeroDivisionError: division by zero"):
        env.step(np.zeros(2, np.float32))
    inner.failing = {"reset": 0}
    with pytest.raises(UserError, match=r"at reset: .*reset\(\) raised RuntimeError: the engine would not start"):
        env.reset(seed=0)


def test_the_old_four_value_api_and_broken_renderings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = vector_env()
    env = wrap(inner, obs="pixels")
    monkeypatch.setattr(inner, "render", lambda: None)
    with pytest.raises(UserError, match=r"render\(\) returned NoneType"):
        env.reset(seed=0)
    monkeypatch.setattr(inner, "render", lambda: np.zeros((40, 60, 4), np.uint8))
    with pytest.raises(UserError, match=r"shape \(40, 60, 4\)"):
        env.reset(seed=0)
    env = wrap(inner, obs="state")
    env.reset(seed=0)
    monkeypatch.setattr(inner, "step", lambda action: (np.zeros(2, np.float32), 0.0, False, {}))
    with pytest.raises(UserError, match="5 values"):
        env.step(np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"id": "CartPle-v1"}, "no environment 'CartPle-v1'. Did you mean 'CartPole-v1'"),
        ({"id": "CartPole-v9"}, "Did you mean 'CartPole-v1'"),
        ({"id": "what is this"}, "no environment"),
        ({"id": "nowhere:CartPole-v1"}, "No module named 'nowhere'"),
        ({"id": "CartPole-v1", "obs": "pixel"}, "Did you mean 'pixels'"),
        ({"id": "CartPole-v1", "size": (64,)}, "height and a width"),
        ({"id": "CartPole-v1", "action_repeat": 0}, "action_repeat=0"),
        ({"id": "CartPole-v1", "time_limit": 0}, "time_limit=0"),
        ({"id": "CartPole-v1", "render_mode": "human"}, "chosen by `obs`"),
        ({"id": "CartPole-v1", "gravity": 3}, "gravity"),
    ],
)
def test_a_wrong_argument_is_answered(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        make(**arguments)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise gym.error.DependencyNotInstalled("Box2D is not installed")

    monkeypatch.setattr(gym, "make", refuse)
    with pytest.raises(UserError, match=r"pip install 'worldvae\[box2d\]'"):
        make("LunarLander-v3")


def test_modules_in_front_of_an_id_are_imported() -> None:
    env = make("worldvae.envs:worldvae/Tiny-v0", obs="state")
    assert env.reset(seed=0)[0]["vector"].shape == (3,)


def test_a_config_may_come_from_omegaconf() -> None:
    given = OmegaConf.from_dotlist(["size=[16,24]", "kwargs.g=3.0", "obs=both", "time_limit=7"])
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(EnvConfig("Pendulum-v1")), given))
    assert isinstance(config, EnvConfig)
    env = make_from(config)
    assert env.observation_layout == ObservationLayout(pixels=(3, 16, 24), vector=3)
    assert (env.time_limit, env.unwrapped is env, env.env.unwrapped.g) == (7, True, 3.0)
    assert "Pendulum-v1" in repr(env)


def test_a_process_that_renders_can_still_be_terminated() -> None:
    """SDL, with which Gymnasium draws, interprets SIGTERM as a request to close its window."""
    script = (
        "import os, signal; from worldvae.envs import make; make('CartPole-v1', obs='pixels').reset(seed=0); "
        "os.kill(os.getpid(), signal.SIGTERM); import time; time.sleep(0.5)"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=120).returncode == -signal.SIGTERM
