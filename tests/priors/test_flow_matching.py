"""The latent diffusion compared with the analytic velocity for a Gaussian N(m, s0^2)."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from worldvae.priors import FlowMatchingPrior

MEAN, STD = 0.7, 0.4


class Analytic(FlowMatchingPrior):
    """The prior whose field is the best one for N(MEAN, STD^2).

    z_a ~ N(cos(a) m, V) with V = cos(a)^2 s0^2 + sin(a)^2 has the score -(z_a - cos(a) m) / V,
    and v = -tan(a) (z_a + score).
    """

    def field(self, latent: Tensor, angle: Tensor, memory: Tensor) -> Tensor:
        sin, cos = angle.sin().unsqueeze(-1), angle.cos().unsqueeze(-1)
        variance = cos.square() * STD**2 + sin.square()
        return -(cos * (STD**2 - 1) * latent + MEAN) / variance


def analytic(latent: int = 2, **settings: int) -> Analytic:
    return Analytic(0, latent, 8, **settings)


def target(latent: Tensor) -> Independent:
    return Independent(Normal(torch.full_like(latent, MEAN), torch.full_like(latent, STD)), 1)


def test_the_flow_of_the_analytic_velocity_is_the_affine_map(generator: torch.Generator) -> None:
    noise = torch.randn(50, 2, generator=generator)
    z = analytic(steps=256).step(torch.zeros(50, 0), noise)
    torch.testing.assert_close(z, MEAN + STD * noise, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("solver", "factor"), [("euler", 2.0), ("heun", 4.0)])
def test_halving_the_stride_divides_the_error(solver: str, factor: float, generator: torch.Generator) -> None:
    noise = torch.randn(50, 2, generator=generator)
    prior = analytic()
    errors = [
        float((prior.integrate(noise, torch.zeros(50, 0), steps, solver) - MEAN - STD * noise).abs().mean())
        for steps in (16, 32, 64)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert 0.8 * factor < coarse / fine < 1.2 * factor


def test_it_is_the_method_of_heun(generator: torch.Generator) -> None:
    """Also in the last step, where the velocity at the end is known to be 0."""
    prior, noise, memory = analytic(), torch.randn(50, 2, generator=generator), torch.zeros(50, 0)
    u, stride = noise, math.pi / 2 / 3
    for angle in (3 * stride, 2 * stride, stride):
        first = math.sin(angle) * prior.field(u, torch.full((50,), angle), memory)
        second = math.sin(angle - stride) * prior.field(u - stride * first, torch.full((50,), angle - stride), memory)
        u = u - stride * (first + second) / 2
    torch.testing.assert_close(prior.integrate(noise, memory, 3, "heun"), u)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_moments_of_samples(solver: str, generator: torch.Generator) -> None:
    """Within 4 standard errors plus the solver's discretisation error, which is measured for the affine map itself."""
    count, prior = 20_000, Analytic(0, 2, 8, steps=16, solver=solver)
    noise = torch.randn(count, 2, generator=generator)
    z = prior.step(torch.zeros(count, 0), noise)
    step_error = float((z - MEAN - STD * noise).square().mean().sqrt())
    assert step_error < {"euler": 0.1, "heun": 0.01}[solver]
    assert ((z.mean(0) - MEAN).abs() < 4 * STD / count**0.5 + step_error).all()
    assert ((z.std(0) - STD).abs() < 4 * STD / (2 * count) ** 0.5 + step_error).all()


def test_likelihood_of_the_flow_is_that_of_the_gaussian(generator: torch.Generator) -> None:
    prior, z = analytic(3), MEAN + STD * torch.randn(50, 3, generator=generator)
    with torch.no_grad():
        found = prior.exact_log_prob(z, torch.zeros(50, 0), steps=192)
    assert float((found - target(z).log_prob(z)).abs().max()) < 1e-3


def test_the_bound_is_tight_at_every_point_for_the_analytic_velocity(generator: torch.Generator) -> None:
    """The mean of 40000 draws of the bound is within 4 standard errors, below 0.04 nats, of log p(z)."""
    count, prior = 40_000, analytic()
    for z in (torch.tensor([0.7, 0.7]), torch.tensor([0.0, 1.5])):
        drawn = prior.log_prob(z.expand(count, 2), torch.zeros(count, 0))
        error = float(drawn.std()) / count**0.5
        assert error < 0.04
        assert abs(float(drawn.mean() - target(z).log_prob(z))) < 4 * error


def test_the_bound_of_a_worse_velocity_is_below_its_density_on_average(generator: torch.Generator) -> None:
    """On average over data, the bound is lower than log p by the squared error of the field."""

    class Wrong(Analytic):
        def field(self, latent: Tensor, angle: Tensor, memory: Tensor) -> Tensor:
            return super().field(latent, angle, memory) + 0.5

    count = 40_000
    z = MEAN + STD * torch.randn(count, 2, generator=generator)
    found = Wrong(0, 2, 8).log_prob(z, torch.zeros(count, 0)) - target(z).log_prob(z)
    # The bound loses (pi/2) E[cos sin] |error|^2 = |error|^2 / 2, here 2 * 0.5^2 / 2.
    assert abs(float(found.mean()) + 0.25) < 4 * float(found.std()) / count**0.5


def test_angles_fall_into_equal_parts() -> None:
    prior = FlowMatchingPrior(5, 2, 8)
    angle, noise = prior._draw(torch.zeros(4, 16, 5))
    parts = (angle.flatten().sort().values / (math.pi / 2) * 64).floor()
    assert torch.equal(parts, torch.arange(64.0))
    assert angle.shape == (4, 16)
    assert noise.shape == (4, 16, 2)


@pytest.mark.parametrize(("memory", "base"), [(0, "standard"), (5, "standard"), (5, "gaussian")])
def test_it_starts_as_its_base_with_an_exact_bound(memory: int, base: str, generator: torch.Generator) -> None:
    prior, h = FlowMatchingPrior(memory, 2, 8, base=base), torch.randn(6, memory, generator=generator)
    z, noise = torch.randn(6, 2, generator=generator), torch.randn(6, 2, generator=generator)
    gaussian = prior.base(h)
    torch.testing.assert_close(prior.step(h, noise), gaussian.mean + gaussian.stddev * noise)
    torch.testing.assert_close(prior.log_prob(z, h), gaussian.log_prob(z))
    torch.testing.assert_close(prior.exact_log_prob(z, h, 4), gaussian.log_prob(z))
    torch.testing.assert_close(prior.mode(h), gaussian.mean)


def test_gradients_of_the_flow_likelihood_reach_everything(generator: torch.Generator) -> None:
    prior = FlowMatchingPrior(5, 2, 8, base="gaussian")
    for parameter in prior.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    z = torch.randn(6, 2, generator=generator, requires_grad=True)
    h = torch.randn(6, 5, generator=generator, requires_grad=True)
    value = prior.exact_log_prob(z, h, 8)
    for gradient in torch.autograd.grad(value.sum(), [z, h, *prior.parameters()]):
        assert float(gradient.abs().max()) > 0
    with torch.no_grad():
        torch.testing.assert_close(prior.exact_log_prob(z, h, 8), value.detach())


def test_its_stream_of_draws_goes_on_from_a_state_dict_and_not_from_the_default_generator() -> None:
    prior = FlowMatchingPrior(5, 2, 8)
    prior.net[-1].bias.data.fill_(1.0)
    h, z = torch.randn(6, 5), torch.randn(6, 2)
    prior.log_prob(z, h)
    state, default = prior.state_dict(), torch.get_rng_state()
    first, second = prior.log_prob(z, h), prior.log_prob(z, h)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), default)
    twin = FlowMatchingPrior(5, 2, 8)
    twin.load_state_dict(state)
    assert torch.equal(twin.log_prob(z, h), first)
    assert torch.equal(twin.log_prob(z, h), second)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="steps=0: the flow needs at least 1 step"):
        FlowMatchingPrior(5, 2, 8, steps=0)
    assert "steps=4, solver=heun" in repr(FlowMatchingPrior(5, 2, 8))
