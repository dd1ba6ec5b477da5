"""The residual posterior is the prior, corrected level by level."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from worldvae.distributions import GaussianFamily
from worldvae.posteriors import ResidualPosterior
from worldvae.priors import HierarchicalPrior, ParametricPrior


def make(memory: int = 5) -> tuple[HierarchicalPrior, ResidualPosterior]:
    torch.manual_seed(0)
    prior = HierarchicalPrior(memory, 6, 8, 3)
    for parameter in prior.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return prior, ResidualPosterior(prior, memory, 4, 8)


def silence(posterior: ResidualPosterior) -> None:
    """Make every correction 0."""
    for net in posterior.nets:
        for parameter in net.rest.parameters():
            parameter.data.zero_()


@pytest.mark.parametrize("memory", [0, 5])
@given(batch=st.lists(st.integers(1, 3), max_size=3))
@settings(max_examples=10, deadline=None)
def test_any_batch_shape(memory: int, batch: list[int]) -> None:
    _, posterior = make(memory)
    h, e = torch.randn(*batch, memory), torch.randn(*batch, 4)
    noise = posterior.noise(tuple(batch), h.device, torch.Generator().manual_seed(0))
    z, parameters = posterior.infer(h, posterior.project(e), noise)
    q = posterior.distribution(parameters)
    assert z.shape == (*batch, 6)
    assert q.batch_shape == tuple(batch)
    torch.testing.assert_close(z, q.mean + q.stddev * noise)
    z, parameters = posterior.infer(h, posterior.project(e), None)
    assert torch.equal(z, posterior.distribution(parameters).mean)


def test_without_corrections_it_is_the_prior(generator: torch.Generator) -> None:
    prior, posterior = make()
    silence(posterior)
    h, e = torch.randn(7, 5, generator=generator), torch.randn(7, 4, generator=generator)
    noise = prior.noise((7,), h.device, generator)
    z, parameters = posterior.infer(h, posterior.project(e), noise)
    torch.testing.assert_close(z, prior.step(h, noise))
    torch.testing.assert_close(prior.kl(posterior.distribution(parameters), z, h), torch.zeros(7), atol=1e-5, rtol=0)


def test_a_correction_is_a_shift_of_the_mean_and_a_factor_of_the_deviation(generator: torch.Generator) -> None:
    """NVAE, equation 2: KL_l = 1/2 sum(shift^2 / std_p^2 + factor^2 - log factor^2 - 1)."""
    prior, posterior = make()
    silence(posterior)
    for net in posterior.nets:
        net.rest[-1][-1].bias.data.copy_(torch.tensor([0.3, -0.2, 0.1, 0.1]))
    h, e = torch.randn(7, 5, generator=generator), torch.randn(7, 4, generator=generator)
    z, parameters = posterior.infer(h, posterior.project(e), prior.noise((7,), h.device, generator))
    q, p = posterior.distribution(parameters), prior.conditionals(h, z)
    shift = torch.tensor([0.3, -0.2]).repeat(3)
    torch.testing.assert_close(q.mean - p.mean, shift.expand(7, 6))
    log_factor = 5 * torch.tanh(torch.tensor(0.1) / 5)
    torch.testing.assert_close((q.stddev / p.stddev).log(), log_factor.expand(7, 6))
    expected = 0.5 * (shift**2 / p.variance + (2 * log_factor).exp() - 2 * log_factor - 1).sum(-1)
    torch.testing.assert_close(prior.kl(q, z, h), expected)
    # If the mean of the prior moves, q moves along, and the KL does not change.
    (gradient,) = torch.autograd.grad(prior.kl(q, z, h).sum(), prior.nets[-1].bias)
    torch.testing.assert_close(gradient[:2], torch.zeros(2), atol=1e-4, rtol=0)
    assert (gradient[2:].abs() > 0.1).all()


def test_each_level_reads_the_embedding_and_the_levels_above(generator: torch.Generator) -> None:
    _, posterior = make()
    h, e = torch.randn(5, generator=generator), torch.randn(4, generator=generator)
    noise = torch.randn(6, generator=generator)

    def sample(embedding: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        return posterior.infer(h, posterior.project(embedding), draw)[0]

    by_embedding, by_noise = torch.autograd.functional.jacobian(sample, (e, noise))
    assert (by_embedding != 0).all()
    blocks = by_noise.abs().unflatten(0, (3, 2)).unflatten(2, (3, 2)).amax(dim=(1, 3))
    assert ((blocks > 0) == torch.ones(3, 3).tril().bool()).all()


def test_the_two_directions_sum_to_the_gradient_of_the_kl(generator: torch.Generator) -> None:
    """Also for the prior's parameters, on which q depends."""
    prior, posterior = make()
    learnt = [*prior.parameters(), *posterior.parameters()]
    h, e = torch.randn(7, 5, generator=generator), torch.randn(7, 4, generator=generator)
    z, parameters = posterior.infer(h, posterior.project(e), prior.noise((7,), h.device, generator))
    q = posterior.distribution(parameters)
    whole = torch.autograd.grad(prior.kl(q, z, h).sum(), learnt, retain_graph=True)
    dynamics, representation = prior.balanced_kl(q, z, h)
    torch.testing.assert_close(dynamics, representation)
    parts = torch.autograd.grad((dynamics + representation).sum(), learnt)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert all(float(gradient.abs().max()) > 0 for gradient in whole)


def test_the_prior_is_not_held_twice() -> None:
    prior, posterior = make()
    model = nn.ModuleDict({"prior": prior, "posterior": posterior})
    assert len(list(model.parameters())) == len(list(prior.parameters())) + len(list(posterior.parameters()))
    assert set(posterior.parameters()).isdisjoint(prior.parameters())
    twin = copy.deepcopy(model)
    assert twin["posterior"].prior is twin["prior"]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="ParametricPrior has no levels: take a HierarchicalPrior"):
        ResidualPosterior(ParametricPrior(5, GaussianFamily(6), 8), 5, 4, 8)
    with pytest.raises(ValueError, match="built for a memory of length 5, not of length 3"):
        ResidualPosterior(make()[0], 3, 4, 8)
    assert "levels=3" in repr(make()[1])
