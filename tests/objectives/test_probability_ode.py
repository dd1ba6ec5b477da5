"""The probability flow of a Gaussian is known: Euler's error halves with the step, Heun's quarters."""

import math

import pytest
import torch
from torch import Tensor

from worldvae.objectives.probability_ode import ODESolver, integrate, sigma_grid

MEAN, STD = 0.7, 0.4


def denoise(x: Tensor, sigma: float) -> Tensor:
    return (sigma**2 * MEAN + STD**2 * x) / (sigma**2 + STD**2)


def exact(x: Tensor, now: float, after: float) -> Tensor:
    return MEAN + (x - MEAN) * math.sqrt((STD**2 + after**2) / (STD**2 + now**2))


def error(solver: ODESolver, steps: int) -> float:
    x = 5 * torch.randn(100, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = sigma_grid(steps + 1, 0.05, 5.0)[:-1]
    return float((integrate(denoise, x, grid, solver) - exact(x, grid[0], grid[-1])).abs().max())


@pytest.mark.parametrize(("solver", "ratio"), [("euler", 2.0), ("heun", 4.0)])
def test_the_order_of_the_error(solver: ODESolver, ratio: float) -> None:
    errors = [error(solver, steps) for steps in (40, 80, 160)]
    assert errors[0] / errors[1] == pytest.approx(ratio, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(ratio, rel=0.05)


def test_the_moments_of_samples() -> None:
    """From sigma_max the flow ends at the data's moments, but for sigma_max^2 instead of sigma_max^2 + STD^2."""
    x = 5 * torch.randn(50000, 1, generator=torch.Generator().manual_seed(0))
    found = integrate(denoise, x, sigma_grid(40, 2e-3, 5.0), "heun")
    assert float(found.mean()) == pytest.approx(MEAN * (1 - STD / math.sqrt(25 + STD**2)), abs=0.01)
    assert float(found.std()) == pytest.approx(STD * 5 / math.sqrt(25 + STD**2), rel=0.02)


def test_the_grid() -> None:
    grid = sigma_grid(3, 2e-3, 5.0)
    assert len(grid) == 4 and grid[0] == pytest.approx(5) and grid[2] == pytest.approx(2e-3) and grid[3] == 0
    assert sigma_grid(1, 2e-3, 5.0) == pytest.approx([5.0, 0.0])
    x = torch.randn(4, 2)
    for solver in ("euler", "heun"):  # one step ends at D
        torch.testing.assert_close(integrate(denoise, x, sigma_grid(1, 2e-3, 5.0), solver), denoise(x, 5.0))
