"""The built-in world: its dynamics, its frames, and the returns of known policies."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from worldvae.envs import make
from worldvae.envs.worlds import tiny


def returns(policy: str, axes: int, episodes: int = 400) -> np.ndarray:
    """Play a batch of episodes with the functions of the world itself."""
    rng = np.random.default_rng(0)
    position, target = rng.uniform(-0.8, 0.8, (episodes, axes)), rng.uniform(-0.6, 0.6, (episodes, axes))
    velocity, total = np.zeros_like(position), np.zeros(episodes)
    distance, speed = np.abs(position - target), 0.0
    for _ in range(tiny.TIME_LIMIT):
        if policy == "bound":  # full thrust towards the target, and stop there for free
            speed = tiny.DAMPING * speed + tiny.GAIN
            distance = np.maximum(distance - speed, 0.0)
            total += tiny.reward_of(distance, np.zeros_like(distance))
            continue
        random = rng.uniform(-1, 1, position.shape)
        action = random if policy == "random" else tiny.feedback(position, velocity, target)
        position, velocity = tiny.advance(position, velocity, action)
        velocity = np.where(np.abs(position) > 1, 0.0, velocity)
        position = np.clip(position, -1, 1)
        total += tiny.reward_of(position, target)
    return total


@pytest.mark.parametrize(("axes", "random", "best"), [(1, 15.8, 48.1), (2, 4.9, 47.0)])
def test_what_policies_earn(axes: int, random: float, best: float) -> None:
    earned = {policy: returns(policy, axes).mean() for policy in ("random", "feedback", "bound")}
    assert earned["random"] == pytest.approx(random, abs=1.5)
    assert earned["feedback"] == pytest.approx(best, abs=0.4)
    assert earned["feedback"] < earned["bound"] < earned["feedback"] + 0.1


@pytest.mark.parametrize("axes", [1, 2])
def test_the_matrices_are_the_dynamics_of_the_environment(axes: int) -> None:
    env = gym.make("worldvae/Tiny-v0", axes=axes).unwrapped
    assert isinstance(env, tiny.TinyEnv)
    a, b = tiny.matrices(axes)
    env.reset(seed=0)
    env.position[:] = 0.1
    state = np.concatenate([env.position, env.velocity])
    for action in np.random.default_rng(0).uniform(-0.5, 0.5, (4, axes)):
        env.step(action)
        state = a @ state + b @ action
        np.testing.assert_allclose(np.concatenate([env.position, env.velocity]), state, atol=1e-12)


def test_known_steps_from_rest() -> None:
    position, velocity = tiny.advance(np.array([0.0]), np.array([0.0]), np.array([1.0]))
    assert (position.item(), velocity.item()) == (0.05, 0.05)
    position, velocity = tiny.advance(position, velocity, np.array([-1.0]))
    assert (position.item(), velocity.item()) == pytest.approx((0.04, -0.01))
    assert tiny.reward_of(np.array([0.25]), np.array([0.0])).item() == pytest.approx(np.exp(-0.5))


def test_the_frame_shows_disc_and_target_where_they_are() -> None:
    frame = tiny.draw(np.array([0.5, -0.5]), np.array([-1.0, 1.0]), 32).astype(float)
    middle, reach = 15.5, 15.5 - 0.12 * 32
    columns, rows = np.meshgrid(np.arange(32), np.arange(32))
    for channel, (x, y) in enumerate([(0.5, -0.5), (-1.0, 1.0)]):
        weight = frame[..., channel] / frame[..., channel].sum()
        assert (weight * columns).sum() == pytest.approx(middle + reach * x, abs=0.05)
        assert (weight * rows).sum() == pytest.approx(middle + reach * y, abs=0.05)
    assert frame[..., 2].max() == 0
    batch = tiny.draw(np.zeros((4, 3, 1)), np.ones((4, 3, 1)), 16)
    assert batch.shape == (4, 3, 16, 16, 3)


def test_border_and_termination() -> None:
    for terminate in (False, True):
        env = make("worldvae/Tiny-v0", obs="state", terminate=terminate)
        env.reset(seed=0)
        for _ in range(tiny.TIME_LIMIT):
            observation, reward, terminated, truncated, _ = env.step(np.ones(1, np.float32))
            if terminated or truncated:
                break
        assert observation["vector"][0] == 1.0
        assert (terminated, truncated) == (terminate, not terminate)
        assert (reward == 0.0) == terminate


def test_discrete_actions_stay_left_right_up_down() -> None:
    env = gym.make("worldvae/TinyDiscrete-v0", axes=2)
    moves = []
    for action in range(5):
        env.reset(seed=0)
        moves.append(np.round(env.step(action)[0][2:4] / tiny.GAIN).astype(int).tolist())
    assert moves == [[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]]


def test_a_decision_draws_one_frame_and_that_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why it is fast: frames that are not shown are not drawn, and none is drawn larger than it is shown."""
    drawn: list[tuple[int, ...]] = []
    draw = tiny.draw

    def counted(*arguments: Any) -> np.ndarray:
        frame = draw(*arguments)
        drawn.append(frame.shape)
        return frame

    monkeypatch.setattr(tiny, "draw", counted)
    env = make("worldvae/Tiny-v0", size=(32, 32), action_repeat=3)
    env.reset(seed=0)
    for _ in range(5):
        env.step(np.zeros(1, np.float32))
    assert drawn == [(32, 32, 3)] * (1 + 5)
