"""The amortised posterior is its family, with parameters that a perceptron predicts from memory and embedding."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldvae.distributions import CategoricalFamily, GaussianFamily, LatentFamily
from worldvae.posteriors import AmortisedPosterior

FAMILIES = [GaussianFamily(4), CategoricalFamily(2, 3)]


def make(family: LatentFamily) -> AmortisedPosterior:
    torch.manual_seed(0)
    return AmortisedPosterior(5, 3, family, 8)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@given(batch=st.lists(st.integers(1, 3), max_size=3))
@settings(max_examples=10, deadline=None)
def test_any_batch_shape(family: LatentFamily, batch: list[int]) -> None:
    posterior, memory, embedding = make(family), torch.randn(*batch, 5), torch.randn(*batch, 3)
    assert posterior.parameters_at(memory, posterior.project(embedding)).shape == (*batch, family.parameter_size)
    assert posterior(memory, embedding).batch_shape == tuple(batch)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_it_is_the_family_at_its_parameters_and_reads_both_inputs(family: LatentFamily) -> None:
    posterior = make(family)
    memory, embedding = torch.randn(6, 5, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    parameters = posterior.parameters_at(memory, posterior.project(embedding))
    assert torch.equal(posterior(memory, embedding).mean, family(parameters).mean)
    assert torch.equal(parameters, posterior.net(memory, posterior.net.project(embedding)))
    for gradient in torch.autograd.grad(parameters[:, 0].sum(), [memory, embedding]):
        assert bool((gradient.abs().amax(dim=1) > 0).all())
    assert repr(family) in repr(posterior)
