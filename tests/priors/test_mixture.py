"""The mixture is a mixture density network: its parts, its density, its samples."""

import math

import pytest
import torch
from torch.distributions import Independent, Normal

from worldvae.priors import MixturePrior


def test_density_is_the_weighted_sum_of_gaussians(generator: torch.Generator) -> None:
    prior, h = MixturePrior(5, 3, 8, 4), torch.randn(6, 5, generator=generator)
    z = torch.randn(6, 3, generator=generator)
    logits, gaussians = prior.components_at(h)
    total = torch.zeros(6)
    for k in range(4):
        gaussian = Independent(Normal(gaussians.mean[:, k], gaussians.stddev[:, k]), 1)
        total += torch.softmax(logits, -1)[:, k] * gaussian.log_prob(z).exp()
    torch.testing.assert_close(prior.log_prob(z, h), total.log())
    assert torch.equal(prior(h).log_prob(z), prior.log_prob(z, h))


def test_one_component_is_a_gaussian(generator: torch.Generator) -> None:
    prior, h = MixturePrior(5, 3, 8, 1), torch.randn(6, 5, generator=generator)
    mean, std = prior.components_at(h)[1].mean.squeeze(1), prior.components_at(h)[1].stddev.squeeze(1)
    noise = prior.noise((6,), h.device, generator)
    torch.testing.assert_close(prior.step(h, noise), mean + std * noise[:, 1:])
    torch.testing.assert_close(prior.mode(h), mean)


def test_the_uniform_number_picks_by_the_cumulated_weights_and_the_mode_is_the_likeliest() -> None:
    prior = MixturePrior(0, 2, 8, 3)
    prior.net.bias.data[:3] = torch.tensor([0.2, 0.5, 0.3]).log()
    means = prior.components_at(torch.zeros(0))[1].mean
    for uniform, component in ((0.0, 0), (0.19, 0), (0.21, 1), (0.69, 1), (0.71, 2), (0.999, 2)):
        noise = torch.tensor([uniform, 0.0, 0.0])
        torch.testing.assert_close(prior.step(torch.zeros(0), noise), means[component])
    torch.testing.assert_close(prior.mode(torch.zeros(0)), means[1])


def test_components_start_apart() -> None:
    means = MixturePrior(0, 4, 8, 3).components_at(torch.zeros(0))[1].mean
    assert float(torch.pdist(means.detach()).min()) > 0.1


def test_a_fork_costs_a_mixture_no_more_than_the_coin(generator: torch.Generator) -> None:
    """At a sample of one of two distant Gaussians, the mixture's density is half of that Gaussian's: KL = log 2."""
    prior = MixturePrior(0, 1, 8, 2)
    prior.net.bias.data.copy_(torch.tensor([0.0, 0.0, -3.0, 0.0, 3.0, 0.0]))  # logits, then (mean, raw) of each
    gaussians = prior.components_at(torch.zeros(20, 0))[1]
    q = Independent(Normal(gaussians.mean[:, 1], gaussians.stddev[:, 1]), 1)
    z = q.mean + q.stddev * torch.randn(20, 1, generator=generator)
    torch.testing.assert_close(prior.kl(q, z, torch.zeros(20, 0)), torch.full((20,), math.log(2)))


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="components=0: a mixture needs at least 1"):
        MixturePrior(5, 2, 8, 0)
    assert "components=3" in repr(MixturePrior(5, 2, 8, 3))
