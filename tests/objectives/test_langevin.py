"""Langevin chains of a Gaussian: the stationary variance is that of the discretised chain."""

import pytest
import torch
from torch import Tensor

from worldvae.objectives.langevin import annealed, langevin
from worldvae.objectives.probability_ode import sigma_grid

MEAN, STD = 0.7, 0.4


def kicks(steps: int, rows: int, generator: torch.Generator) -> list[Tensor]:
    return list(torch.randn(steps, rows, 1, generator=generator))


@pytest.mark.parametrize("share", [0.1, 1.0, 2.0])
def test_the_stationary_moments(share: float, generator: torch.Generator) -> None:
    """With step size h the variance is v / (1 - h / 4 v): 2.6 %, 33 % and 100 % too large here."""
    variance, step = STD**2, share * STD**2
    start = torch.zeros(20000, 1)
    end = langevin(lambda x: (x - MEAN) / variance, start, step, kicks(200, 20000, generator))
    assert float(end.mean()) == pytest.approx(MEAN, abs=0.02)
    assert float(end.var()) == pytest.approx(variance / (1 - step / (4 * variance)), rel=0.04)


def test_annealed_chains_end_at_the_data(generator: torch.Generator) -> None:
    def denoise(x: Tensor, sigma: float) -> Tensor:
        return (sigma**2 * MEAN + STD**2 * x) / (sigma**2 + STD**2)

    x = 5 * torch.randn(10000, 1, generator=generator)
    spreads = []
    for step in (0.3, 1.0):
        found = annealed(denoise, x, sigma_grid(12, 2e-3, 5.0), step, lambda _: kicks(40, 10000, generator))
        assert float(found.mean()) == pytest.approx(MEAN, abs=0.03)
        spreads.append(float(found.std()))
    assert spreads[1] == pytest.approx(STD, rel=0.05)
    assert spreads[0] > 1.1 * STD  # such small steps no longer mix where there is little noise
