"""The hierarchy is the product of its levels."""

import pytest
import torch
from torch.distributions import Independent, Normal

from worldvae.distributions import detached, kl
from worldvae.priors import HierarchicalPrior


def make(levels: int = 3) -> HierarchicalPrior:
    prior = HierarchicalPrior(5, 6, 8, levels)
    for parameter in prior.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return prior


def test_density_and_samples_are_those_of_the_levels_one_by_one(generator: torch.Generator) -> None:
    prior, h = make(), torch.randn(7, 5, generator=generator)
    noise = prior.noise((7,), h.device, generator)
    z = prior.step(h, noise)
    total = torch.zeros(7)
    for level in range(3):
        here = slice(2 * level, 2 * level + 2)
        p = prior.part(prior.level_parameters(level, h, z[:, : 2 * level]))
        torch.testing.assert_close(z[:, here], p.mean + p.stddev * noise[:, here])
        total += p.log_prob(z[:, here])
    torch.testing.assert_close(prior.log_prob(z, h), total)


def test_a_level_sees_those_above_it_and_none_below(generator: torch.Generator) -> None:
    prior, h = make(), torch.randn(5, generator=generator)
    jacobian = torch.autograd.functional.jacobian(lambda x: prior.step(h, x), torch.randn(6, generator=generator))
    blocks = jacobian.abs().unflatten(0, (3, 2)).unflatten(2, (3, 2)).amax(dim=(1, 3))
    assert ((blocks > 0) == torch.ones(3, 3).tril().bool()).all()


def test_one_level_is_a_gaussian_with_the_closed_kl(generator: torch.Generator) -> None:
    prior, h = make(1), torch.randn(7, 5, generator=generator)
    q = Independent(Normal(torch.randn(7, 6, generator=generator), torch.full((7, 6), 0.4)), 1)
    p = prior.conditionals(h, torch.zeros(7, 6))
    torch.testing.assert_close(prior.kl(q, torch.zeros(7, 6), h), kl(q, p))
    torch.testing.assert_close(prior.mode(h), p.mean)


def test_the_closed_kl_of_levels_has_the_mean_of_the_plain_estimate_and_less_variance(
    generator: torch.Generator,
) -> None:
    prior, h, count = make(), torch.randn(5, generator=generator).expand(20_000, 5), 20_000
    q = Independent(Normal(torch.full((count, 6), 0.5), torch.full((count, 6), 0.4)), 1)
    z = 0.5 + 0.4 * torch.randn(count, 6, generator=generator)
    with torch.no_grad():
        closed, plain = prior.kl(q, z, h), q.log_prob(z) - prior.log_prob(z, h)
    difference = closed - plain
    assert float(difference.mean().abs()) < 4 * float(difference.std()) / count**0.5
    assert float(closed.std()) < 0.8 * float(plain.std())
    assert float((closed < 0).sum()) == 0


def test_the_posterior_feels_the_lower_levels_through_its_upper_sample(generator: torch.Generator) -> None:
    prior, h = make(), torch.randn(7, 5, generator=generator)
    latent = torch.randn(7, 6, generator=generator, requires_grad=True)
    q = detached(prior.conditionals(h, latent))
    shifted = Independent(Normal(q.mean + 1, q.stddev), 1)
    (gradient,) = torch.autograd.grad(prior.balanced_kl(shifted, latent, h)[1].sum(), latent)
    assert (gradient[:, :4].abs() > 0).all()
    assert torch.equal(gradient[:, 4:], torch.zeros(7, 2))  # nothing is below the last level


@pytest.mark.parametrize("levels", [0, 4])
def test_what_is_refused(levels: int) -> None:
    with pytest.raises(ValueError, match=f"z of length 6 cannot be split evenly into levels={levels}"):
        HierarchicalPrior(5, 6, 8, levels)
    assert "levels=3" in repr(make())
