"""The flow can be inverted, is initially the identity, and has the density given by its Jacobian."""

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from worldvae.priors import FlowPrior

SHAPES = [(0, 1), (5, 1), (0, 2), (5, 3), (5, 8)]
every_shape = pytest.mark.parametrize(("memory", "latent"), SHAPES)


def make(memory: int, latent: int, *, awake: bool = True) -> FlowPrior:
    prior = FlowPrior(memory, latent, 16, 3)
    for parameter in prior.parameters() if awake else ():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return prior


@every_shape
def test_it_starts_as_the_standard_normal(memory: int, latent: int, generator: torch.Generator) -> None:
    prior, h = make(memory, latent, awake=False), torch.randn(50, memory, generator=generator)
    z = 2 * torch.randn(50, latent, generator=generator)
    standard = Independent(Normal(torch.zeros(50, latent), torch.ones(50, latent)), 1)
    torch.testing.assert_close(prior.log_prob(z, h), standard.log_prob(z), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(prior.step(h, z), z, atol=1e-5, rtol=1e-5)


@every_shape
def test_it_inverts_and_its_density_is_that_of_the_jacobian(
    memory: int, latent: int, generator: torch.Generator
) -> None:
    prior, h = make(memory, latent), torch.randn(50, memory, generator=generator)
    noise = 1.5 * torch.randn(50, latent, generator=generator)
    z = prior.step(h, noise)
    assert ((z - noise).abs() > 0.1).any()
    context = h if memory else None
    torch.testing.assert_close(prior.flow(context).transform(z), noise, atol=1e-4, rtol=1e-4)

    def sample(one: Tensor) -> Tensor:
        return prior.step(h[0], one)

    jacobian = torch.autograd.functional.jacobian(sample, noise[0])
    expected = Normal(0.0, 1.0).log_prob(noise[0]).sum() - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(prior.log_prob(z[0], h[0]), expected, atol=1e-3, rtol=1e-3)


def test_both_halves_see_each_other_after_two_transforms(generator: torch.Generator) -> None:
    prior, noise = make(0, 4), torch.randn(4, generator=generator)
    jacobian = torch.autograd.functional.jacobian(lambda x: prior.step(torch.zeros(0), x), noise)
    assert (jacobian != 0).all()


def test_mode_is_the_image_of_no_noise(generator: torch.Generator) -> None:
    prior, h = make(5, 3), torch.randn(6, 5, generator=generator)
    assert torch.equal(prior.mode(h), prior.step(h, torch.zeros(6, 3)))


def test_bfloat16_around_it_changes_nothing(generator: torch.Generator) -> None:
    prior, h = make(5, 3), torch.randn(6, 5, generator=generator)
    z = torch.randn(6, 3, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        inside = prior.log_prob(z, h), prior.step(h, z)
    assert torch.equal(inside[0], prior.log_prob(z, h))
    assert torch.equal(inside[1], prior.step(h, z))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="transforms=0: a flow needs at least 1"):
        FlowPrior(5, 2, 8, 0)
