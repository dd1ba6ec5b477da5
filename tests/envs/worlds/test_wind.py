"""The wind world: both futures, what waiting is worth, and the value of an optimal policy."""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from worldvae.envs import make
from worldvae.envs.worlds import wind

Policy = Callable[[Tensor], Tensor]


def bare() -> wind.WindEnv:
    env = gym.make("worldvae/Wind-v0").unwrapped
    assert isinstance(env, wind.WindEnv)
    return env


def returns(policy: Policy, episodes: int = 4000) -> Tensor:
    draws = torch.Generator().manual_seed(0)
    start = 2 * torch.rand(episodes, generator=draws, dtype=torch.float64) - 1
    state = torch.stack([start, torch.ones_like(start), torch.zeros_like(start)], dim=-1)
    total = torch.zeros_like(start)
    for _ in range(wind.TIME_LIMIT):
        state, reward = wind.advance(state, policy(state), torch.randn(episodes, generator=draws).double())
        total += reward
    return total


def hedger(state: Tensor) -> Tensor:
    """Wait in the middle, and chase the ball once it drifts."""
    return ((wind.SIDE * state[..., 2].sign() - state[..., 0]) / wind.STEP).clamp(-1, 1).unsqueeze(-1)


def test_the_optimal_value_by_dynamic_programming_is_what_the_policy_earns() -> None:
    values = wind.optimal_values()[0]
    np.testing.assert_allclose(values, wind.BEST_RETURN, atol=1e-12)  # from every start
    earned = returns(wind.expert)
    error = float(earned.std()) / len(earned) ** 0.5
    assert error < 0.02
    assert abs(float(earned.mean()) - wind.BEST_RETURN) < 4 * error
    finer = wind.optimal_values(100)[0]  # finer actions and places gain nothing
    np.testing.assert_allclose(finer, wind.BEST_RETURN, atol=1e-12)
    with pytest.raises(ValueError, match="as 50 does"):
        wind.optimal_values(33)


def test_the_middle_is_worth_less_than_either_side() -> None:
    earned = returns(hedger, 500)
    # a catcher that begins on one side may not be back in the middle before the first wind
    assert float(earned.mean()) == pytest.approx(wind.MIDDLE_RETURN, abs=0.1)
    assert abs(wind.MIDDLE_RETURN - 0.3633) < 1e-4
    assert wind.MIDDLE_RETURN < 0.3 * wind.BEST_RETURN


def test_before_the_wind_nothing_tells_the_side_and_after_it_both_come_equally_often() -> None:
    env, sides = bare(), []
    for seed in range(200):
        state, _ = env.reset(seed=seed)
        for phase in range(wind.GUST + 1):
            assert state[2] == 0.0, phase
            state, *_ = env.step(np.zeros(1))
        sides.append(np.sign(state[2]))
    assert set(sides) == {-1.0, 1.0}
    assert abs(np.mean(sides)) < 4 / 200**0.5


def test_one_round_row_by_row() -> None:
    env = bare()
    env.reset(seed=0)
    env.state = np.array([0.5, 1.0, 0.0])
    seen = [env.step(np.zeros(1)) for _ in range(wind.TIME_LIMIT)]
    rewards, states = np.array([row[1] for row in seen]), np.array([row[4]["state"] for row in seen])
    assert set(np.flatnonzero(rewards)) <= {14, 30, 46}  # a reward arrives with phase 15
    for row in (14, 30, 46):
        assert states[row, 1] == -1.0
        assert abs(states[row, 2]) == wind.SIDE
        assert rewards[row] == pytest.approx(max(0.0, 1 - ((states[row, 2] - 0.5) / wind.WIDTH) ** 2))
        assert states[row + 1].tolist() == [0.5, 1.0, 0.0]


def test_the_frame_shows_ball_and_catcher_where_they_are() -> None:
    columns, rows = np.meshgrid(np.arange(32), np.arange(32))
    for ball in (-0.7, 0.0, 0.7):
        frame = wind.draw(np.array([0.3, -1.0, ball]), 32).astype(float)
        red, green = frame[..., 0] / frame[..., 0].sum(), frame[..., 1] / frame[..., 1].sum()
        reach = 32 / (2 * (1 + wind.HALF_WIDTH))
        assert (red * columns).sum() == pytest.approx(15.5 + reach * ball, abs=0.05)
        assert (green * columns).sum() == pytest.approx(15.5 + reach * 0.3, abs=0.1)
        assert (red * rows).sum() > 27
        assert (green * rows).sum() > 28
    assert wind.draw(np.zeros((4, 2, 3)), 16).shape == (4, 2, 16, 16, 3)


def test_the_mean_of_both_futures_is_far_from_either() -> None:
    left, right = (wind.draw(np.array([0.0, -1.0, side]), 32).astype(float) for side in (-0.7, 0.7))
    mean = (left + right) / 2
    nothing = ((left - wind.draw(np.array([0.0, -1.0, 0.0]), 32)) ** 2).sum()
    assert ((mean - left) ** 2).sum() > 0.2 * nothing


def test_pixels_state_and_seeds() -> None:
    env = make("worldvae/Wind-v0", obs="both", size=(32, 32))
    first, again = env.reset(seed=3)[0], env.reset(seed=3)[0]
    np.testing.assert_array_equal(first["vector"], again["vector"])
    assert first["pixels"].shape == (3, 32, 32)
    steps = 0
    while True:
        _, _, terminated, truncated, info = env.step(np.ones(1, np.float32))
        steps += 1
        assert not terminated
        assert info["state"].dtype == np.float64
        if truncated:
            break
    assert steps == wind.TIME_LIMIT
