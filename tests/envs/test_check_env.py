"""`worldvae check-env`: its report on good, dull, broken and slow environments."""

import json
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from worldvae.commands.check_env import check_env, inspect_env
from worldvae.envs import EnvConfig
from worldvae.errors import UserError


class Dull(gym.Env):
    """An environment whose observations, rewards and ends are given by its arguments."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(
        self, reward: float = 0.0, end: int = 50, blank: bool = False, noisy: bool = False, render_mode: Any = None
    ) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
        self.action_space = gym.spaces.Discrete(2)
        self.render_mode, self.reward, self.end, self.blank, self.noisy = render_mode, reward, end, blank, noisy

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        noise = np.random.default_rng().normal() if self.noisy else 0.0
        return np.array([self.count + noise], np.float32), self.reward, self.count >= self.end, False, {}

    def render(self) -> Any:
        frame = np.zeros((16, 16, 3), np.uint8)
        frame[0, 0 if self.blank else self.count % 16] = 0 if self.blank else 255
        return frame


@pytest.fixture(autouse=True)
def _dull() -> Iterator[None]:
    gym.register("Dull-v0", Dull)
    yield
    del gym.registry["Dull-v0"]


def inspect(obs: str = "auto", **kwargs: Any) -> Any:
    return inspect_env(EnvConfig("Dull-v0", obs=obs, size=(16, 16), kwargs=kwargs), seconds=0.3)


def test_a_good_environment_has_no_problems() -> None:
    report = inspect_env(EnvConfig("worldvae/Tiny-v0", size=(32, 32)), seconds=3.0)
    assert report.problems == ()
    assert report.observation == "frames of 3×32×32 (channels, height, width) from its rendering."
    assert report.action == "1 continuous number in [-1, 1]."
    assert report.verdict.startswith("Can be learned: nothing speaks against it")
    assert 0 <= report.reward_range[0] < report.reward_range[1] <= 1
    assert report.episode_length == 50


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"reward": 0.0}, "never found a reward"),
        ({"reward": 1.0, "end": 10_000}, "no episode terminated"),
        ({"reward": 5000.0}, "5000 in size"),
        ({"reward": 1.0, "end": 2}, "after 2.0 steps"),
        ({"reward": 1.0, "end": 10_000}, "no time limit"),
        ({"reward": 1.0, "blank": True}, "blank"),
        ({"reward": 1.0, "noisy": True, "obs": "state"}, "will not repeat"),
    ],
)
def test_each_problem_is_found_and_nothing_else(kwargs: dict[str, Any], words: str) -> None:
    report = inspect(**kwargs)
    assert any(words in problem for problem in report.problems), report.problems
    assert len(report.problems) <= (2 if kwargs.get("end") == 10_000 else 1), report.problems
    assert report.verdict.startswith("Cannot" if "blank" in kwargs else "Can be learned, with")


def test_a_terminating_task_with_constant_reward_is_fine() -> None:
    report = inspect(reward=1.0)
    assert (report.problems, report.episode_length) == ((), 50)


class Camera(gym.Env):
    """Shows an image between two values, in a given observation space."""

    def __init__(self, space: gym.Space, low: float = 0, high: float = 1, seeds: int = 2**32) -> None:
        self.observation_space, self.action_space = space, gym.spaces.Discrete(2)
        self.low, self.high, self.seeds, self.taken = low, high, seeds, []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.taken.append(seed)
        if seed is not None and seed >= self.seeds:
            raise OverflowError("seed does not fit")
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        return self.observe(), float(self.np_random.random()), False, False, {}

    def observe(self) -> np.ndarray:
        space = self.observation_space
        return self.np_random.uniform(self.low, self.high, space.shape).astype(space.dtype)


def look(monkeypatch: pytest.MonkeyPatch, space: gym.Space, **kwargs: Any) -> Any:
    monkeypatch.setitem(gym.registry, "Camera-v0", gym.envs.registration.EnvSpec("Camera-v0", Camera))
    kwargs["space"] = space
    return inspect_env(EnvConfig("Camera-v0", size=(16, 16), time_limit=20, kwargs=kwargs), seconds=0.0)


def test_images_outside_of_their_bounds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    space = gym.spaces.Box(0.0, 1.0, (16, 16, 3), np.float32)
    with pytest.raises(
        UserError, match=r"Camera-v0, at reset: the observation holds 2.*, and its space promises 0 to 1"
    ):
        look(monkeypatch, space, high=255)
    assert look(monkeypatch, space).problems == ()


def test_images_far_within_their_bounds_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = look(monkeypatch, gym.spaces.Box(0, 65535, (16, 16), np.uint16), high=2000).problems
    assert "only the grey levels 0 to 8 of 0 to 255" in problem and "the bounds that the images really have" in problem


def test_a_vector_of_thousands_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    space = gym.spaces.Dict({"lidar": gym.spaces.Box(-np.inf, np.inf, (40, 60, 3)), "v": gym.spaces.Box(-1, 1, (2,))})
    monkeypatch.setattr(Camera, "observe", lambda self: self.observation_space.sample())
    problems = look(monkeypatch, space).problems
    assert any("7202 numbers, most of them from the observation['lidar'], Box(-inf, inf," in one for one in problems)


def test_large_seeds_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    space = gym.spaces.Box(0.0, 1.0, (3,))
    monkeypatch.setattr("worldvae.commands.check_env.episode_seed", lambda *_: 7)
    with pytest.raises(UserError, match=r"OverflowError: seed does not fit.*The seed was 2147483647"):
        look(monkeypatch, space, seeds=2**31 - 1)
    assert look(monkeypatch, space, seeds=2**31).problems == ()


def run(*arguments: str) -> Any:
    app = typer.Typer()
    app.command()(check_env)
    return CliRunner().invoke(app, arguments)


def test_json_is_one_object_and_nothing_else() -> None:
    result = run("Pendulum-v1", "obs=state", "kwargs.g=3.0", "--seconds", "0.1", "--json")
    report = json.loads(result.stdout)
    assert set(report) == {
        "env_id", "observation", "action", "frames_per_second", "reward_range", "episode_length", "verdict", "problems",
    }  # fmt: skip
    assert report["observation"] == "a vector of 3 numbers."
    assert report["frames_per_second"] > 0


def test_plain_words_on_the_terminal() -> None:
    result = run("worldvae/TinyDiscrete-v0", "--seconds", "0.1")
    assert result.exit_code == 0
    assert "1 choice among 3." in result.stdout and "Can be learned" in result.stdout


def test_mistakes_are_the_users() -> None:
    assert isinstance(run("CartPle-v1").exception, UserError)
    assert isinstance(run("CartPole-v1", "sise=3").exception, UserError)
