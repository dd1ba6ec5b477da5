"""HMC draws from the right density: moments of Gaussians, and the exact posterior of a linear VAE."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from worldvae.models.static_vae import VAE
from worldvae.posteriors import hmc
from worldvae.posteriors.hmc import DualAveraging, leapfrog_steps

COVARIANCE = torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.5, -0.3], [0.0, -0.3, 0.4]], dtype=torch.float64)
MEAN = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def gaussian(z: Tensor) -> Tensor:
    return MultivariateNormal(MEAN, COVARIANCE).log_prob(z)


def agrees(draws: Tensor, expected: Tensor) -> None:
    """Chains are independent: the spread of their means is the standard error, whatever their autocorrelation."""
    means = draws.mean(0)
    error = means.std(0) / math.sqrt(len(means))
    assert bool(((means.mean(0) - expected).abs() < 4 * error).all())
    assert float(error.max()) < 0.06  # otherwise the comparison proves nothing


def test_mean_and_covariance_of_a_correlated_gaussian(generator: torch.Generator) -> None:
    start = 3 * torch.randn(64, 3, dtype=torch.float64, generator=generator)
    samples = hmc(gaussian, start, 200, 8, 80, generator, shared=True)
    assert samples.draws.shape == (200, 64, 3)
    agrees(samples.draws, MEAN)
    centred = samples.draws - MEAN
    agrees((centred.unsqueeze(-1) * centred.unsqueeze(-2)).flatten(2), COVARIANCE.flatten())
    assert samples.accept_rate.shape == samples.step_size.shape == (64,)
    assert float(samples.accept_rate.mean()) == pytest.approx(0.8, abs=0.12)


@pytest.mark.parametrize("first", [1e-3, 0.1, 30.0])
@pytest.mark.parametrize("shared", [False, True])
def test_the_step_size_finds_the_target_from_anywhere(first: float, shared: bool, generator: torch.Generator) -> None:
    start = MEAN + torch.randn(32, 3, dtype=torch.float64, generator=generator)
    samples = hmc(gaussian, start, 60, 5, 120, generator, step_size=first, target=0.7, shared=shared)
    above = 0.15 if shared else 0.25
    assert 0.7 - 0.08 < float(samples.accept_rate.mean()) < 0.7 + above
    assert len(samples.step_size.unique()) == (1 if shared else 32)


def test_every_chain_finds_its_own_step(generator: torch.Generator) -> None:
    scale = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64).repeat_interleave(16)
    start = scale.unsqueeze(-1) * torch.randn(48, 2, dtype=torch.float64, generator=generator)

    def density(z: Tensor) -> Tensor:
        return -(z / scale.unsqueeze(-1)).square().sum(-1) / 2

    samples = hmc(density, start, 100, 5, 150, generator)
    ratios = (samples.step_size / scale).view(3, 16).mean(1)
    assert torch.allclose(ratios, ratios.mean().expand(3), rtol=0.25)
    spread = samples.draws.square().mean((0, 2)).sqrt() / scale
    assert torch.allclose(spread.view(3, 16).mean(1), torch.ones(3, dtype=torch.float64), atol=0.15)


def test_on_a_linear_vae_it_draws_from_the_exact_posterior(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    vae = VAE.dense((6,), 3, layers=0).double()
    linear, sigma = vae.likelihood.trunk[0][0], float(vae.likelihood.sigma.detach()[0])
    weight, bias = linear.weight.detach(), linear.bias.detach()
    x = torch.randn(1, 6, dtype=torch.float64, generator=generator)
    precision = weight.T @ weight / sigma**2 + torch.eye(3, dtype=torch.float64)
    covariance = torch.linalg.inv(precision)
    mean = covariance @ weight.T @ (x[0] - bias) / sigma**2
    start = torch.randn(64, 3, dtype=torch.float64, generator=generator)
    samples = hmc(lambda z: vae.log_joint(x.expand(64, 6), z), start, 200, 6, 80, generator)
    agrees(samples.draws, mean)
    centred = samples.draws - mean
    agrees((centred.unsqueeze(-1) * centred.unsqueeze(-2)).flatten(2), covariance.flatten())


def test_leapfrog_is_reversible_and_of_second_order(generator: torch.Generator) -> None:
    def density(z: Tensor) -> Tensor:
        return -z.square().square().sum(-1) / 4 - z[:, 0] * z[:, 1] / 2

    position, momentum = torch.randn(2, 8, 2, dtype=torch.float64, generator=generator)
    slope = torch.func.grad(lambda z: density(z).sum())(position)
    errors = []
    for halvings in (3, 4):
        epsilon = torch.full((8,), 0.4 / 2**halvings, dtype=torch.float64)
        end, final, value, end_slope = leapfrog_steps(density, position, momentum, slope, epsilon, 2 * 2**halvings)
        before = density(position) - momentum.square().sum(-1) / 2
        errors.append(float((value - final.square().sum(-1) / 2 - before).abs().mean()))
        back = leapfrog_steps(density, end, -final, end_slope, epsilon, 2 * 2**halvings)
        assert torch.allclose(back[0], position, atol=1e-10)
        assert torch.allclose(back[1], -momentum, atol=1e-10)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.25)


def test_dual_averaging_solves_for_the_target() -> None:
    state = DualAveraging.begin(torch.ones(1))
    for _ in range(500):
        state = state.update(torch.exp(-state.log_step.exp()), 0.6)  # the acceptance rate is exp(-eps)
    assert float(state.averaged.exp()) == pytest.approx(-math.log(0.6), rel=0.02)


def test_the_same_seed_gives_the_same_draws_and_walls_are_not_crossed() -> None:
    def positive(z: Tensor) -> Tensor:
        return torch.where(z > 0, -z, -torch.inf).sum(-1)  # an exponential distribution

    draws = [
        hmc(positive, torch.ones(64, 1), 300, 4, 50, torch.Generator().manual_seed(seed), shared=True).draws
        for seed in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert bool((draws[0] > 0).all())
    agrees(draws[0], torch.ones(1))


def test_mistakes_are_named(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="not finite"):
        hmc(lambda z: z.sum(-1).log(), -torch.ones(2, 1), 5, 2, 5, generator)
    with pytest.raises(ValueError, match="leapfrog=0"):
        hmc(gaussian, MEAN.unsqueeze(0), 5, 0, 5, generator)
