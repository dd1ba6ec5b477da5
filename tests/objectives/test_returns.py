"""Lambda-returns compared with their recursive definition and their two special cases."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae.objectives import lambda_returns

shapes = {"batch": st.integers(1, 4), "horizon": st.integers(1, 7), "seed": st.integers(0, 999)}
few = settings(max_examples=30, deadline=None)


def draw(batch: int, horizon: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, batch, horizon, generator=generator).unbind()
    return rewards, values, torch.rand(batch, horizon, generator=generator)


def slow(r: list[float], v: list[float], d: list[float], mix: float, k: int) -> float:
    """Return R_k by its definition; the lists begin with the values for state 1."""
    last = k + 1 == len(r)
    return r[k] + d[k] * ((1 - mix) * v[k] + mix * (v[k] if last else slow(r, v, d, mix, k + 1)))


@given(mix=st.floats(0, 1), **shapes)
@few
def test_against_the_definition(mix: float, batch: int, horizon: int, seed: int) -> None:
    rewards, values, discounts = draw(batch, horizon, seed)
    found = lambda_returns(rewards, values, discounts, mix)
    assert found.shape == (batch, horizon)
    for i in range(batch):
        row = [x[i].tolist() for x in (rewards, values, discounts)]
        for k in range(horizon):
            assert float(found[i, k]) == pytest.approx(slow(*row, mix, k), abs=1e-4)


@given(**shapes)
@few
def test_zero_is_one_step_and_one_is_monte_carlo(batch: int, horizon: int, seed: int) -> None:
    rewards, values, discounts = draw(batch, horizon, seed)
    assert torch.allclose(lambda_returns(rewards, values, discounts, 0.0), rewards + discounts * values, atol=1e-5)
    weights = torch.cat([torch.ones(batch, 1), discounts.cumprod(1)], dim=1)
    total = (weights[:, :-1] * rewards).sum(1) + weights[:, -1] * values[:, -1]
    assert torch.allclose(lambda_returns(rewards, values, discounts, 1.0)[:, 0], total, atol=1e-4)


@given(mix=st.floats(0, 1))
@few
def test_exact_values_are_a_fixed_point(mix: float) -> None:
    """With reward 1 and discount 0.9 for ever the value is 10, for any lambda."""
    ones = torch.ones(2, 5)
    assert torch.allclose(lambda_returns(ones, 10 * ones, 0.9 * ones, mix), 10 * ones, atol=1e-4)


def test_known_numbers_with_a_termination() -> None:
    """The episode ends after state 2: neither the reward 100 nor the value 50 after it may count."""
    rewards, values = torch.tensor([[1.0, 2.0, 100.0]]), torch.tensor([[4.0, 50.0, 50.0]])
    found = lambda_returns(rewards, values, torch.tensor([[0.5, 0.0, 0.5]]), 0.75)
    assert found.tolist() == [[1 + 0.5 * (0.25 * 4 + 0.75 * 2), 2.0, 100 + 0.5 * 50]]
