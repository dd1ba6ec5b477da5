"""The linear-Gaussian environment: its dynamics, and the return of the optimal controller."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldvae import exact
from worldvae.envs import make
from worldvae.envs.worlds import linear
from worldvae.envs.worlds.linear import LinearGaussianEnv
from worldvae.errors import UserError


def bare(**kwargs: object) -> LinearGaussianEnv:
    env = gym.make("worldvae/LinearGaussian-v0", **kwargs).unwrapped
    assert isinstance(env, LinearGaussianEnv)
    return env


@pytest.mark.parametrize("full_state", [False, True])
def test_spaces_and_the_time_limit(full_state: bool) -> None:
    env = make("worldvae/LinearGaussian-v0", full_state=full_state)
    observation, _ = env.reset(seed=0)
    assert observation["vector"].shape == (2 if full_state else 1,)
    assert env.action_layout.size == 1
    for step in range(linear.TIME_LIMIT):
        observation, _, terminated, truncated, _ = env.step(np.ones(1, np.float32))
        assert not terminated
        assert truncated == (step == linear.TIME_LIMIT - 1)
        assert observation["vector"].dtype == np.float32


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="take one of mild, stiff"):
        make("worldvae/LinearGaussian-v0", world="stif")
    with pytest.raises(UserError, match=r"reach=0\.0 must be positive"):
        make("worldvae/LinearGaussian-v0", reach=0.0)


def test_the_same_seed_gives_the_same_episode() -> None:
    episodes = []
    for seed in (3, 3, 4):
        env = bare()
        env.reset(seed=seed)
        episodes.append([env.step(np.array([0.1]))[0].item() for _ in range(5)])
    assert episodes[0] == episodes[1] != episodes[2]


@pytest.mark.parametrize("name", ["stiff", "mild"])
def test_the_dynamics_are_the_matrices(name: str) -> None:
    """The residuals of A z + B u and of C z are noise with covariance Q and R; the start has covariance P0."""
    env, world = bare(world=name), exact.WORLDS[name]
    a, b, c = world.A.numpy(), world.B.numpy(), world.C.numpy()
    random = np.random.default_rng(0)
    env.reset(seed=0)
    moved, seen = [], []
    for _ in range(4000):
        before, action = env.state, random.uniform(-0.3, 0.3, 1)
        x, reward, *_ = env.step(action)
        u = env.reach * action
        moved.append(env.state - a @ before - b @ u)
        seen.append(x - c @ env.state)
        cost = env.state[0] ** 2 + 0.1 * env.state[1] ** 2 + 0.01 * u[0] ** 2
        assert reward == pytest.approx(-cost)
    starts = []
    for _ in range(4000):
        env.reset()
        starts.append(env.state)
    for draws, covariance in ((moved, world.Q), (seen, world.R), (starts, world.P0)):
        array, expected = np.asarray(draws), covariance.numpy()
        variances = np.diagonal(expected)
        assert (np.abs(array.mean(0)) < 4 * np.sqrt(variances / 4000)).all()
        spread = np.sqrt((np.outer(variances, variances) + expected**2) / 4000)
        assert (np.abs(np.cov(array.T) - expected) < 4 * spread).all()


def test_the_actions_of_the_reference_are_within_reach() -> None:
    env = bare(full_state=True)
    env.reset(seed=0)
    for u in np.sin(0.3 * np.arange(linear.TIME_LIMIT)):
        action = np.array([u / env.reach])
        assert env.action_space.contains(action.astype(np.float32))
    clipped = [bare(full_state=True) for _ in range(2)]
    for world, action in zip(clipped, (1.0, 7.0), strict=True):
        world.reset(seed=0)
        world.step(np.array([action]))
    np.testing.assert_array_equal(clipped[0].state, clipped[1].state)


def test_the_kalman_filter_is_calibrated_on_it() -> None:
    """-2 log p(x) + constants is chi-square: the squared whitened prediction errors average to one."""
    env = bare(world="mild")
    xs, us = [], []
    random = np.random.default_rng(0)
    for episode in range(40):
        actions = random.uniform(-1, 1, (linear.TIME_LIMIT, 1))
        rows = [env.reset(seed=episode)[0]]
        rows += [env.step(action)[0] for action in actions]
        xs.append(rows)
        us.append(np.concatenate([env.reach * actions, np.zeros((1, 1))]))
    x, u = torch.from_numpy(np.asarray(xs, np.float64)), torch.from_numpy(np.asarray(us))
    known, world = exact.kalman_filter(env.world, x, u), env.world
    error = (x - known.predicted_mean @ world.C.mT)[..., 0]
    variance = (world.C @ known.predicted_covariance @ world.C.mT + world.R)[:, 0, 0]
    squares = error.square() / variance
    assert abs(float(squares.mean()) - 1) < 4 * math.sqrt(2 / squares.numel())


@pytest.mark.parametrize(("full_state", "least"), [(True, 0.0074977), (False, 0.0531763)])
def test_the_optimal_controller_pays_what_theory_says(full_state: bool, least: float) -> None:
    env = bare(full_state=full_state)
    world = env.world
    a, b, c = world.A.numpy(), world.B.numpy(), world.C.numpy()
    feedback = exact.lqr_gain(world).numpy()
    kalman = exact.filter_gain(world)[0].numpy()
    x, _ = env.reset(seed=0)
    estimate, paid = np.zeros(2), []
    for _ in range(40_200):
        estimate = x if full_state else estimate + kalman @ (x - c @ estimate)
        u = -feedback @ estimate
        x, reward, *_ = env.step(u / env.reach)
        estimate = a @ estimate + b @ u
        paid.append(-reward)
    # The influence of the start is gone; blocks of 200 steps are many times longer than the correlation time of costs.
    blocks = np.asarray(paid[200:]).reshape(-1, 200).mean(1)
    error = blocks.std(ddof=1) / math.sqrt(len(blocks))
    assert abs(blocks.mean() - least) < 4 * error
    assert error < 0.03 * least
