"""The energy-based prior: its chain, its contrastive gradient, and its estimates of the normaliser."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from worldvae.priors import EnergyPrior


def make(memory: int = 0, *, awake: bool = True, **settings: float) -> EnergyPrior:
    prior = EnergyPrior(memory, 2, 8, **settings)
    for parameter in prior.parameters() if awake else ():
        parameter.data.add_(0.4 * torch.randn_like(parameter))
    return prior


def log_normaliser_on_grid(prior: EnergyPrior, memory: Tensor) -> Tensor:
    """Return log Z by quadrature, with gradients."""
    axis = torch.linspace(-6, 6, 121)
    z = torch.cartesian_prod(axis, axis)
    return prior.log_prob(z, memory.expand(len(z), -1)).logsumexp(0) + 2 * math.log(float(axis[1] - axis[0]))


@pytest.mark.parametrize("memory", [0, 5])
def test_it_starts_as_its_gaussian_which_the_chain_leaves_as_it_is(memory: int, generator: torch.Generator) -> None:
    prior, count = make(memory, awake=False, steps=10, step_size=1.0), 20_000
    h = torch.randn(memory, generator=generator)
    gaussian = prior.base(h)
    with torch.no_grad():
        z = prior.step(h.expand(count, -1), prior.noise((count,), h.device, generator))
    u = (z - gaussian.mean) / gaussian.stddev
    assert (u.mean(0).abs() < 4 / count**0.5).all()
    assert ((u.square().mean(0) - 1).abs() < 4 * (2 / count) ** 0.5).all()
    torch.testing.assert_close(prior.log_prob(z[0], h), gaussian.log_prob(z[0]))
    assert torch.equal(prior.mode(h), gaussian.mean)
    assert float(prior.log_normaliser(h, generator).abs()) < 1e-6


class Tilt(EnergyPrior):
    """E(z) = sum(slope z + curvature z^2 / 2), for which p is also Gaussian."""

    slope, curvature = 0.8, 1.5

    def energy(self, latent: Tensor, memory: Tensor) -> Tensor:
        return (self.slope * latent + self.curvature * latent.square() / 2).sum(-1)


def test_a_quadratic_energy_has_the_gaussian_that_completes_the_square(generator: torch.Generator) -> None:
    """N(0, 1) exp(-a z - c z^2 / 2) is N(-a / (1 + c), 1 / (1 + c)), and log Z = a^2 / 2 (1 + c) - log(1 + c) / 2."""
    prior, count = Tilt(0, 2, 8, steps=60, step_size=0.05, normaliser_samples=4000), 20_000
    a, c = Tilt.slope, Tilt.curvature
    with torch.no_grad():
        z = prior.step(torch.zeros(count, 0), prior.noise((count,), torch.device("cpu"), generator))
    # The chain's discretisation error is of the order of step_size, relative to the variance.
    variance = 1 / (1 + c)
    assert ((z.mean(0) + a * variance).abs() < 4 * (variance / count) ** 0.5).all()
    assert ((z.var(0) / variance - 1).abs() < 4 * (2 / count) ** 0.5 + 0.05).all()
    torch.testing.assert_close(prior.mode(torch.zeros(0)), torch.full((2,), -a * variance), atol=1e-3, rtol=0)
    log_z = a**2 * variance - math.log(1 + c)
    assert abs(float(prior.log_normaliser(torch.zeros(0), generator)) - log_z) < 0.1
    assert abs(float(log_normaliser_on_grid(prior, torch.zeros(0))) - log_z) < 1e-3


@pytest.mark.parametrize("memory", [0, 5])
def test_the_gradient_is_that_of_the_normalised_density(memory: int, generator: torch.Generator) -> None:
    """Contrastive gradients agree with those of log Z by quadrature: within 4 standard errors over repetitions."""
    prior, h = make(memory, steps=60, step_size=0.05), torch.randn(memory, generator=generator)
    z = torch.randn(4000, 2, generator=generator)
    q = Independent(Normal(z, torch.full_like(z, 1e-3)), 1)
    learnt = [parameter for parameter in prior.parameters() if parameter.requires_grad]

    def flat(value: Tensor) -> Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, learnt, retain_graph=True)])

    exact = flat(log_normaliser_on_grid(prior, h) - prior.log_prob(z, h.expand(4000, -1)).mean())
    drawn = torch.stack([flat(prior.balanced_kl(q, z, h.expand(4000, -1))[0].mean()) for _ in range(12)])
    error = (drawn.mean(0) - exact).abs()
    assert (error < 5 * drawn.std(0) / 12**0.5 + 0.01).all()  # 0.01: the chain's discretisation, and q's own width
    assert float(exact.abs().max()) > 0.2


def test_the_value_of_the_kl_is_that_of_the_normalised_density(generator: torch.Generator) -> None:
    prior, count = make(normaliser_samples=1000), 400
    q = Independent(Normal(torch.full((count, 2), 0.3), torch.full((count, 2), 0.5)), 1)
    z, h = 0.3 + 0.5 * torch.randn(count, 2, generator=generator), torch.zeros(count, 0)
    plain = q.log_prob(z) - prior.log_prob(z, h) + log_normaliser_on_grid(prior, h[0])
    difference = (prior.kl(q, z, h) - plain).detach()
    assert abs(float(difference.mean())) < 4 * float(difference.std()) / count**0.5 + 0.01


def test_its_stream_of_negatives_goes_on_from_a_state_dict_and_not_from_the_default_generator() -> None:
    prior, h, z = make(), torch.zeros(6, 0), torch.randn(6, 2)
    q = Independent(Normal(z, torch.ones_like(z)), 1)
    prior.kl(q, z, h)
    state, default = prior.state_dict(), torch.get_rng_state()
    first, second = prior.kl(q, z, h), prior.kl(q, z, h)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), default)
    twin = EnergyPrior(0, 2, 8)
    twin.load_state_dict(state)
    assert torch.equal(twin.kl(q, z, h), first)
    assert torch.equal(twin.kl(q, z, h), second)


def test_no_energy_is_beyond_the_limit() -> None:
    prior = make()
    prior.net[-1].weight.data.mul_(1e4)
    energy = prior.energy(100 * torch.randn(50, 2), torch.zeros(50, 0))
    assert float(energy.abs().max().detach()) <= 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"step_size": 2.0}, "step_size=2.0 must be above 0 and below 2"),
    ],
)
def test_what_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EnergyPrior(0, 2, 8, **settings)
    assert "steps=30" in repr(make())
