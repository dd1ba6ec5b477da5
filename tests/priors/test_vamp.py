"""The VampPrior is a mixture of its posterior, which it holds by reference only."""

import copy
import math

import pytest
import torch
from torch import nn

from worldvae.distributions import CategoricalFamily, GaussianFamily
from worldvae.posteriors import AmortisedPosterior
from worldvae.priors import VampPrior


def make(memory: int, components: int = 7) -> tuple[AmortisedPosterior, VampPrior]:
    posterior = AmortisedPosterior(memory, 3, GaussianFamily(2), 8)
    return posterior, VampPrior(posterior, memory, 3, 8, components)


def test_with_the_data_as_pseudo_inputs_it_is_the_aggregated_posterior(generator: torch.Generator) -> None:
    posterior, prior = make(0)
    data = torch.randn(7, 3, generator=generator)
    prior.pseudo.data.copy_(data)
    z = torch.randn(50, 2, generator=generator)
    each = posterior(torch.zeros(50, 7, 0), data.expand(50, 7, 3)).log_prob(z.unsqueeze(1).expand(50, 7, 2))
    aggregated = each.double().logsumexp(1) - math.log(7)
    assert ((prior.log_prob(z, torch.zeros(50, 0)) - aggregated).abs() < 1e-5).all()


def test_a_sample_is_one_of_q_at_one_pseudo_input(generator: torch.Generator) -> None:
    _, prior = make(5)
    prior.weigh.bias.data.copy_(torch.arange(7.0))  # the last one has the largest weight
    h = torch.randn(40, 5, generator=generator)
    noise = prior.noise((40,), h.device, generator)
    logits, q = prior.components_at(h)
    chosen = (logits.softmax(-1).cumsum(-1) > noise[:, :1]).int().argmax(-1)
    assert len(chosen.unique()) > 2
    rows = torch.arange(40)
    torch.testing.assert_close(prior.step(h, noise), q.mean[rows, chosen] + q.stddev[rows, chosen] * noise[:, 1:])
    torch.testing.assert_close(prior.mode(h), q.mean[:, -1])


def test_weights_start_uniform_and_follow_the_memory(generator: torch.Generator) -> None:
    _, prior = make(5)
    h = torch.randn(4, 5, generator=generator)
    assert torch.equal(prior.logits(h), torch.zeros(4, 7))
    for parameter in prior.weigh.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator))
    assert (prior.logits(h).std(0) > 0).all()


def test_the_posterior_is_not_held_twice_but_learnt() -> None:
    posterior, prior = make(5)
    model = nn.ModuleDict({"prior": prior, "posterior": posterior})
    assert set(dict(prior.named_parameters())) == {"pseudo", *(f"weigh.{n}" for n, _ in prior.weigh.named_parameters())}
    assert len(list(model.parameters())) == len(list(prior.parameters())) + len(list(posterior.parameters()))
    assert not any("posterior" in key for key in prior.state_dict())
    assert set(prior.learnt()) == set(model.parameters())
    twin = copy.deepcopy(model)
    assert twin["prior"].posterior is twin["posterior"]


def test_what_is_refused() -> None:
    categorical = AmortisedPosterior(5, 3, CategoricalFamily(2, 3), 8)
    with pytest.raises(ValueError, match="AmortisedPosterior gives a FlatOneHot: take a posterior with a Gaussian"):
        VampPrior(categorical, 5, 3, 8, 4)
    posterior, _ = make(5)
    with pytest.raises(ValueError, match="cannot read a memory of length 5 and an embedding of length 4"):
        VampPrior(posterior, 5, 4, 8, 4)
    with pytest.raises(ValueError, match="components=0"):
        VampPrior(posterior, 5, 3, 8, 0)
    assert "components=7" in repr(make(5)[1])
