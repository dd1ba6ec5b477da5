"""The detail world: one pixel decides, and walking to it earns exactly what is known to be the most."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldvae.envs import make
from worldvae.envs.worlds import detail


def bare(**kwargs: object) -> detail.DetailEnv:
    env = gym.make("worldvae/Detail-v0", **kwargs).unwrapped
    assert isinstance(env, detail.DetailEnv)
    return env


def earned(env: detail.DetailEnv, seed: int, disturb: float = 0.0) -> tuple[float, float]:
    """Return what walking to the target earns, and the most that can be earned."""
    env.reset(seed=seed)
    best, total, random = float(detail.best_return(torch.from_numpy(env.state))), 0.0, np.random.default_rng(seed)
    for _ in range(detail.TIME_LIMIT):
        action = detail.expert(torch.from_numpy(env.state)).numpy()
        total += env.step(action + disturb * random.standard_normal(2))[1]
    return total, best


def test_walking_to_the_target_earns_the_known_optimum_and_nothing_more() -> None:
    env = bare()
    for seed in range(10):
        total, best = earned(env, seed)
        assert total == pytest.approx(best, abs=1e-9)
        assert earned(env, seed, disturb=0.3)[0] < best
        assert 30 < best <= detail.TIME_LIMIT


def test_the_target_is_one_pixel_and_the_discs_are_a_hundred_times_larger() -> None:
    for side in (32, 64):
        env = bare(side=side, render_mode="rgb_array")
        for seed in range(5):
            env.reset(seed=seed)
            frame = env.render()
            assert frame.shape == (side, side, 3)
            lit = np.argwhere(frame[..., 1])
            assert len(lit) == 1
            assert lit[0][::-1].tolist() == detail.pixel_of(env.state[2:4], side).tolist()
            assert frame[..., 2].astype(bool).sum() > 80
            reach = side / (2 * (1 + detail.WALKER_RADIUS))  # the target is in the middle of its pixel
            np.testing.assert_allclose(lit[0][::-1], (side - 1) / 2 + reach * env.state[2:4], atol=1e-9)


def test_targets_differ_by_episode_and_stay() -> None:
    env, places = bare(), set()
    for seed in range(20):
        env.reset(seed=seed)
        target = env.state[2:4].copy()
        places.add(tuple(target))
        for _ in range(3):
            env.step(np.ones(2))
        np.testing.assert_array_equal(env.state[2:4], target)
    assert len(places) > 15


def test_discs_bounce_and_do_not_matter() -> None:
    state = torch.zeros(1, 12, dtype=torch.float64)
    state[0, 4], state[0, 8] = 0.97, 0.06
    following, reward = detail.advance(state, torch.zeros(1, 2, dtype=torch.float64))
    assert float(following[0, 4]) == pytest.approx(0.97)  # 1.03, bounced at 1
    assert float(following[0, 8]) == -0.06
    assert float(reward) == 1.0
    env = bare()
    env.reset(seed=0)
    for _ in range(200):
        env.step(np.zeros(2))
        assert np.abs(env.state[4:8]).max() <= 1.0


def test_pixels_and_state() -> None:
    env = make("worldvae/Detail-v0", obs="both", size=(32, 32))
    observation, info = env.reset(seed=0)
    assert observation["pixels"].shape == (3, 32, 32)
    np.testing.assert_allclose(observation["vector"], info["state"], atol=1e-6)
