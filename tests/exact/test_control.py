"""The optimal controller of linear-Gaussian worlds."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae import exact
from worldvae.exact import COST, MILD, STIFF, LinearGaussian, QuadraticCost


def average_cost(world: LinearGaussian, gain: Tensor, full_state: bool) -> float:
    """Average cost of u = -gain z (or of the filtered mean), from the stationary covariance of the closed loop."""
    kalman, predicted, filtered = exact.filter_gain(world)
    noise = world.Q if full_state else kalman @ (world.C @ predicted @ world.C.mT + world.R) @ kalman.mT
    loop = world.A - world.B @ gain
    size = len(world.m0) ** 2
    # vec(X) = (F x F) vec(X) + vec(noise)
    eye = torch.eye(size, dtype=torch.float64)
    estimate = torch.linalg.solve(eye - torch.kron(loop, loop), noise.flatten()).view_as(noise)
    state = estimate if full_state else estimate + filtered
    return float((COST.state @ state).trace() + (COST.action @ gain @ estimate @ gain.mT).trace())


def test_the_published_costs() -> None:
    assert f"{exact.lqr_cost(STIFF).item():.7f}" == "0.0074977"
    assert f"{exact.lqg_cost(STIFF).item():.7f}" == "0.0531763"


@pytest.mark.parametrize("world", [STIFF, MILD], ids=["stiff", "mild"])
def test_two_formulas_agree(world: LinearGaussian) -> None:
    gain = exact.lqr_gain(world)
    assert average_cost(world, gain, True) == pytest.approx(exact.lqr_cost(world).item(), rel=1e-12)
    assert average_cost(world, gain, False) == pytest.approx(exact.lqg_cost(world).item(), rel=1e-12)


@given(first=st.floats(-1, 1), second=st.floats(-1, 1))
@settings(max_examples=30, deadline=None)
def test_no_other_gain_is_cheaper(first: float, second: float) -> None:
    other = exact.lqr_gain(STIFF) + torch.tensor([[first, second]], dtype=torch.float64)
    assert average_cost(STIFF, other, True) >= exact.lqr_cost(STIFF).item() - 1e-12
    assert average_cost(STIFF, other, False) >= exact.lqg_cost(STIFF).item() - 1e-12


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_riccati_solves_its_equation_and_stabilises(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    a, b, root = draw(3, 3), draw(3, 2), draw(3, 3)
    w, u = root @ root.mT + 0.1 * torch.eye(3, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    p = exact.riccati(a, b, w, u)
    gain = torch.linalg.solve(u + b.mT @ p @ b, b.mT @ p @ a)
    torch.testing.assert_close(p, w + a.mT @ p @ (a - b @ gain), rtol=1e-8, atol=1e-8)
    assert float(torch.linalg.eigvals(a - b @ gain).abs().max()) < 1


def test_what_cannot_be_stabilised_is_refused() -> None:
    one = torch.eye(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="stabilisable"):
        exact.riccati(2 * one, 0 * one, one, one)


def test_a_cost_of_ones_own() -> None:
    """A scalar world has a formula: p = w + a^2 p u / (u + b^2 p)."""
    one = torch.eye(1, dtype=torch.float64)
    world = LinearGaussian(one, one, one, one, one, one, torch.zeros(1, dtype=torch.float64))
    golden = (1 + 5**0.5) / 2
    cost = QuadraticCost(one, one)
    assert exact.lqr_cost(world, cost).item() == pytest.approx(golden, rel=1e-12)
    assert exact.lqr_gain(world, cost).item() == pytest.approx(golden - 1, rel=1e-12)
