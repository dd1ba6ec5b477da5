"""The prior is its family, with parameters that a perceptron predicts from the memory."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldvae.distributions import CategoricalFamily, GaussianFamily, LatentFamily
from worldvae.priors import ParametricPrior

FAMILIES = [GaussianFamily(4), CategoricalFamily(2, 3)]


def make(family: LatentFamily) -> ParametricPrior:
    torch.manual_seed(0)
    return ParametricPrior(5, family, 8)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@given(batch=st.lists(st.integers(1, 3), max_size=3))
@settings(max_examples=10, deadline=None)
def test_any_batch_shape(family: LatentFamily, batch: list[int]) -> None:
    prior, memory = make(family), torch.randn(*batch, 5)
    noise = prior.noise(tuple(batch), memory.device, torch.Generator().manual_seed(0))
    assert prior.step(memory, noise).shape == (*batch, family.latent_size)
    assert prior(memory).batch_shape == tuple(batch)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_step_and_mode_belong_to_the_distribution(family: LatentFamily) -> None:
    prior, memory = make(family), torch.randn(1, 5)
    noise = prior.noise((20_000, 1), memory.device, torch.Generator().manual_seed(0))
    samples = prior.step(memory.expand(20_000, 1, 5), noise)
    assert ((samples.mean(0) - prior(memory).mean).abs() < 4 * samples.std(0) / 20_000**0.5).all()
    mode = prior.mode(memory)
    assert bool((prior(memory).log_prob(mode) >= prior(memory).log_prob(samples) - 1e-5).all())


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_it_reads_the_memory_and_gradients_reach_its_parameters(family: LatentFamily) -> None:
    prior = make(family)
    memory = torch.randn(6, 5, requires_grad=True)
    noise = prior.noise((6,), memory.device, torch.Generator().manual_seed(0))
    weight = torch.arange(family.latent_size, dtype=torch.float32)
    sum_of = (prior.step(memory, noise) * weight).sum()
    for gradient in torch.autograd.grad(sum_of, [memory, *prior.parameters()]):
        assert float(gradient.abs().max()) > 0
    assert repr(family) in repr(prior)
