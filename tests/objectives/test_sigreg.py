"""SIGReg: the formula, its value for normal samples, and what its gradient does."""

import math

import numpy as np
import pytest
import torch

from worldvae.objectives.sigreg import random_directions, sigreg


def plain(latents: np.ndarray, directions: np.ndarray, knots: int) -> float:
    """Return the statistic by loops, from its definition: complex numbers, and numpy's trapezoid rule on [-3, 3]."""
    t = np.linspace(-3, 3, 2 * knots - 1)
    phi, found = np.exp(-(t**2) / 2), []
    for direction in directions.T:
        empirical = np.array([np.mean(np.exp(1j * x * (latents @ direction))) for x in t])
        found.append(np.trapezoid(np.abs(empirical - phi) ** 2 * phi, t))
    return len(latents) * float(np.mean(found))


@pytest.mark.parametrize("knots", [2, 5, 17])
def test_it_is_the_integral_of_its_definition(knots: int, generator: torch.Generator) -> None:
    latents = torch.randn(40, 6, generator=generator, dtype=torch.float64) * 1.5 + 0.3
    directions = random_directions(7, 6, generator).double()
    expected = plain(latents.numpy(), directions.numpy(), knots)
    assert float(sigreg(latents, directions, knots)) == pytest.approx(expected, rel=1e-10)


def test_directions_are_of_unit_length_and_come_from_the_generator() -> None:
    first, again, other = (random_directions(50, 8, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.testing.assert_close(first.norm(dim=0), torch.ones(50))


@pytest.mark.parametrize("samples", [300, 3000])
def test_normal_samples_have_the_expected_value_however_many_they_are(samples: int, generator: torch.Generator) -> None:
    """E = integral of (1 - phi^2) phi = sqrt(2 pi) erf(3 / sqrt 2) - sqrt(2 pi / 3) erf(3 sqrt(3 / 2))."""
    expected = math.sqrt(2 * math.pi) * math.erf(3 / math.sqrt(2))
    expected -= math.sqrt(2 * math.pi / 3) * math.erf(3 * math.sqrt(1.5))
    found = [
        sigreg(torch.randn(samples, 16, generator=generator), random_directions(64, 16, generator)) for _ in range(20)
    ]
    assert float(torch.stack(found).mean()) == pytest.approx(expected, rel=0.1)


def test_collapsed_and_scaled_and_shifted_samples_cost_more_the_more_they_are(generator: torch.Generator) -> None:
    directions = random_directions(64, 8, generator)
    costs = []
    for samples in (300, 3000):
        normal = torch.randn(samples, 8, generator=generator)
        low_rank = normal[:, :1].expand(-1, 8)
        changed = (0 * normal, 0.1 * normal, 3 * normal, normal + 1, low_rank)
        costs.append(torch.stack([sigreg(x, directions) for x in (normal, *changed)]))
    assert (costs[0][1:] > 10 * costs[0][0]).all()
    torch.testing.assert_close(costs[1][1:] / costs[0][1:], torch.full((5,), 10.0), rtol=0.3, atol=0)


@pytest.mark.parametrize(("std", "sign"), [(0.3, -1), (2.0, 1)])
def test_its_gradient_brings_the_spread_to_one(std: float, sign: int, generator: torch.Generator) -> None:
    scale = torch.tensor(std, requires_grad=True)
    samples = torch.randn(500, 4, generator=generator)
    (slope,) = torch.autograd.grad(sigreg(scale * samples, random_directions(64, 4, generator)), scale)
    assert float(slope) * sign > 1


def test_descending_it_makes_samples_normal(generator: torch.Generator) -> None:
    """Samples on a line, and too small, spread until their projections are as those of N(0, I)."""
    samples = (0.1 * torch.randn(200, 1, generator=generator)).repeat(1, 3)
    samples = (samples + 0.01 * torch.randn(200, 3, generator=generator)).requires_grad_()
    adam = torch.optim.Adam([samples], lr=0.1)
    for _ in range(80):
        adam.zero_grad()
        sigreg(samples, random_directions(16, 3, generator)).backward()
        adam.step()
    found = samples.detach()
    torch.testing.assert_close(found.mean(0), torch.zeros(3), atol=0.1, rtol=0)
    torch.testing.assert_close(torch.cov(found.T), torch.eye(3), atol=0.15, rtol=0)
