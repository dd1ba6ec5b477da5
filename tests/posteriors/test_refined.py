"""Refining q for each example: it reaches the exact bound if q can be exact, and never makes it worse."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from worldvae.distributions import FullGaussianFamily, GaussianFamily, LatentFamily
from worldvae.models.static_vae import VAE
from worldvae.posteriors import FlowPosterior, semi_amortised, svi

LATENT, SIZE, EXAMPLES = 3, 8, 12


@pytest.fixture
def linear() -> VAE:
    """Return a linear VAE whose decoder has orthogonal columns: the exact posterior is diagonal."""
    torch.manual_seed(0)
    vae = VAE.dense((SIZE,), LATENT, layers=0, family=GaussianFamily(LATENT, min_std=0.0)).double()
    basis = torch.linalg.qr(torch.randn(SIZE, LATENT, dtype=torch.float64))[0]
    vae.likelihood.trunk[0][0].weight.data = basis * torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)
    return vae


@pytest.fixture
def x() -> Tensor:
    return torch.randn(EXAMPLES, SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def exact(vae: VAE, x: Tensor) -> Tensor:
    linear, sigma = vae.likelihood.trunk[0][0], vae.likelihood.sigma
    covariance = linear.weight @ linear.weight.T + torch.diag(sigma.square())
    return MultivariateNormal(linear.bias, covariance).log_prob(x).detach()


def elbo(vae: VAE, family: LatentFamily, parameters: Tensor, x: Tensor) -> Tensor:
    """Return the ELBO with fresh noise, the same in all comparisons."""
    noise = torch.randn(4000, len(x), LATENT, dtype=x.dtype, generator=torch.Generator().manual_seed(99))
    parameters = parameters.expand(4000, *parameters.shape)
    with torch.no_grad():
        latent = family.sample(parameters, noise)
        return (vae.log_joint(x, latent) - family(parameters).log_prob(latent)).mean(0)


def shifted(vae: VAE, x: Tensor) -> Tensor:
    """Return the exact parameters, with means that are 0.5 too large."""
    weight, sigma = vae.likelihood.trunk[0][0].weight.detach(), vae.likelihood.sigma.detach()[0]
    variance = 1 / (weight.square().sum(0) / sigma**2 + 1)
    mean = (x - vae.likelihood.trunk[0][0].bias.detach()) @ weight * variance / sigma**2
    raw = 2 * (torch.logit(variance.sqrt() / 2) + 2.2)
    return torch.cat([mean + 0.5, raw.expand(len(x), -1)], dim=-1)


def test_svi_reaches_the_exact_bound_from_scratch(linear: VAE, x: Tensor, generator: torch.Generator) -> None:
    family = linear.posterior.family
    like = torch.full((EXAMPLES, 2 * LATENT), torch.nan, dtype=x.dtype)  # its values do not matter
    refined = svi(lambda z: linear.log_joint(x, z), family, like, generator=generator)
    found = elbo(linear, family, refined.parameters, x)
    assert bool((exact(linear, x) - elbo(linear, family, torch.zeros_like(like), x) > 0.05).all())
    assert torch.allclose(found, exact(linear, x), rtol=0, atol=1e-3)
    assert torch.allclose(refined.bound, exact(linear, x), rtol=0, atol=1e-2)  # with few samples


def test_a_full_covariance_is_exact_where_a_diagonal_cannot_be(x: Tensor, generator: torch.Generator) -> None:
    torch.manual_seed(1)
    vae = VAE.dense((SIZE,), LATENT, layers=0).double()
    vae.likelihood.trunk[0][0].weight.data *= 3
    gaps = []
    for family in (GaussianFamily(LATENT, min_std=0.0), FullGaussianFamily(LATENT)):
        like = torch.zeros(EXAMPLES, family.parameter_size, dtype=x.dtype)
        refined = svi(lambda z: vae.log_joint(x, z), family, like, generator=generator)
        gaps.append(float((exact(vae, x) - elbo(vae, family, refined.parameters, x)).mean()))
    assert gaps[0] > 0.05
    assert gaps[1] == pytest.approx(0, abs=1e-3)


def test_the_gap_of_a_shifted_encoder_is_closed(linear: VAE, x: Tensor, generator: torch.Generator) -> None:
    family, start = linear.posterior.family, shifted(linear, x)
    refined = semi_amortised(lambda z: linear.log_joint(x, z), family, start, steps=60, generator=generator)
    before = exact(linear, x) - elbo(linear, family, start, x)
    after = exact(linear, x) - elbo(linear, family, refined.parameters, x)
    assert float(before.min()) > 0.5
    assert float(after.max()) < 0.01 * float(before.min())


@pytest.mark.parametrize("steps", [0, 1, 3, 10])
@pytest.mark.parametrize("learning_rate", [0.05, 3.0])
def test_it_is_never_worse_than_the_encoder(
    linear: VAE, x: Tensor, generator: torch.Generator, steps: int, learning_rate: float
) -> None:
    family, start = linear.posterior.family, linear.parameters_of(x)[1].detach()
    refined = semi_amortised(
        lambda z: linear.log_joint(x, z), family, start, steps=steps, learning_rate=learning_rate, generator=generator
    )
    assert bool((refined.bound >= refined.first).all())
    kept = refined.bound == refined.first
    assert torch.equal(refined.parameters[kept], start[kept])
    fresh = elbo(linear, family, refined.parameters, x) - elbo(linear, family, start, x)
    assert float(fresh.mean()) >= 0
    if learning_rate < 1:  # after large steps, few samples may choose wrongly for an example
        assert float(fresh.min()) >= 0
        assert steps == 0 or float(fresh.mean()) > 0.01


def test_decoded_latents_are_counted(linear: VAE, x: Tensor, generator: torch.Generator) -> None:
    decoded = 0

    def log_joint(z: Tensor) -> Tensor:
        nonlocal decoded
        decoded += len(z)
        return linear.log_joint(x, z)

    family, start = linear.posterior.family, torch.zeros(EXAMPLES, 2 * LATENT, dtype=x.dtype)
    for refine in (
        lambda: svi(log_joint, family, start, steps=25, checks=4, samples=3, generator=generator),
        lambda: semi_amortised(log_joint, family, start, steps=4, samples=2, generator=generator),
    ):
        decoded = 0
        assert refine().decoder_calls == decoded > 0


def test_examples_do_not_influence_each_other_and_seeds_decide(linear: VAE, x: Tensor) -> None:
    family, start = linear.posterior.family, torch.zeros(EXAMPLES, 2 * LATENT, dtype=x.dtype)

    def refine(x: Tensor, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return semi_amortised(lambda z: linear.log_joint(x, z), family, start, generator=generator).parameters

    other = x.clone()
    other[0] += 10
    assert torch.equal(refine(x), refine(x)) and not torch.equal(refine(x), refine(x, 1))
    assert torch.equal(refine(x)[1:], refine(other)[1:]) and not torch.equal(refine(x)[0], refine(other)[0])


def test_an_encoder_can_be_trained_through_the_steps(linear: VAE, x: Tensor) -> None:
    family, log_joint = linear.posterior.family, lambda z: linear.log_joint(x, z)

    def through(start: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        refined = semi_amortised(log_joint, family, start, steps=2, generator=generator, differentiable=True)
        return refined.parameters

    start = shifted(linear, x).requires_grad_()
    weight = torch.randn(2 * LATENT, dtype=x.dtype)
    gradient = torch.autograd.grad((through(start) * weight).sum(), start)[0]
    direction = torch.randn_like(start)
    with torch.no_grad():
        delta = 1e-6 * direction
    ends = [(through((start + sign * delta).detach().requires_grad_()) * weight).sum() for sign in (1, -1)]
    numeric = float((ends[0] - ends[1]).detach()) / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(numeric, rel=1e-4)
    with pytest.raises(ValueError, match="differentiable=True"):
        through(start.detach())


def test_it_refines_a_flow(x: Tensor, linear: VAE, generator: torch.Generator) -> None:
    posterior = FlowPosterior(0, SIZE, LATENT, 8).double()
    start = posterior.infer(x[:, :0], posterior.project(x), None)[1].detach()
    refined = semi_amortised(
        lambda z: linear.log_joint(x, z), posterior.family, start, steps=20, learning_rate=0.1, generator=generator
    )
    before, after = (elbo(linear, posterior.family, p, x) for p in (start, refined.parameters))
    assert float((after - before).mean()) > 0.1
