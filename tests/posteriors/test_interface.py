"""Properties of all posteriors."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldvae.distributions import CategoricalFamily, FullGaussianFamily, GaussianFamily
from worldvae.posteriors import AmortisedPosterior, FlowPosterior, Posterior

MAKERS: dict[str, Callable[[int, int], Posterior]] = {
    "gaussian": lambda m, e: AmortisedPosterior(m, e, GaussianFamily(4), 8),
    "linear": lambda m, e: AmortisedPosterior(m, e, GaussianFamily(4), 8, layers=0),
    "full": lambda m, e: AmortisedPosterior(m, e, FullGaussianFamily(4), 8),
    "categorical": lambda m, e: AmortisedPosterior(m, e, CategoricalFamily(2, 2), 8),
    "flow": lambda m, e: FlowPosterior(m, e, 4, 8, 3),
}
CPU = torch.device("cpu")


def make(name: str, memory: int = 5) -> Posterior:
    torch.manual_seed(0)
    posterior = MAKERS[name](memory, 3)
    for parameter in posterior.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return posterior


@pytest.mark.parametrize("name", MAKERS)
@given(batch=st.lists(st.integers(1, 3), max_size=3), memory=st.sampled_from([0, 5]))
@settings(max_examples=10, deadline=None)
def test_any_batch_shape_with_memory_and_without(name: str, batch: list[int], memory: int) -> None:
    posterior = make(name, memory)
    projected = posterior.project(torch.randn(*batch, 3))
    noise = posterior.noise(tuple(batch), CPU, torch.Generator().manual_seed(0))
    for given_noise in (noise, None):
        latent, parameters = posterior.infer(torch.randn(*batch, memory), projected, given_noise)
        assert latent.shape == (*batch, posterior.latent_size)
        q = posterior.distribution(parameters)
        assert q.batch_shape == tuple(batch) and q.event_shape == (4,)
        assert q.log_prob(latent).shape == tuple(batch)


@pytest.mark.parametrize("name", MAKERS)
def test_infer_draws_from_the_distribution_it_returns(name: str) -> None:
    posterior, number = make(name), 20_000
    memory, embedding = torch.randn(1, 5), torch.randn(1, 3)
    with torch.no_grad():
        projected = posterior.project(embedding).expand(number, -1)
        noise = posterior.noise((number,), CPU, torch.Generator().manual_seed(0))
        latent, parameters = posterior.infer(memory.expand(number, -1), projected, noise)
        assert torch.allclose(parameters, parameters[:1].expand_as(parameters), atol=1e-5)
        assert torch.equal(posterior.sample(parameters, noise), latent)
        again, log_prob = posterior.sample_and_log_prob(parameters, noise)
        q = posterior.distribution(parameters)
        assert torch.allclose(again, latent, atol=1e-5)
        assert torch.allclose(log_prob, q.log_prob(latent), atol=1e-3)
        torch.manual_seed(1)
        other = posterior.distribution(parameters[:1]).sample((number,))[:, 0]
    for f in (lambda z: z, torch.square, lambda z: z.prod(-1, keepdim=True)):
        error = ((f(latent).var(0) + f(other).var(0)) / number).sqrt()
        assert bool(((f(latent).mean(0) - f(other).mean(0)).abs() <= 4.5 * error + 1e-6).all())


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_reach_both_inputs_and_every_weight(name: str) -> None:
    posterior = make(name)
    memory, embedding = torch.randn(6, 5, requires_grad=True), torch.randn(6, 3, requires_grad=True)
    noise = posterior.noise((6,), CPU, torch.Generator().manual_seed(0))
    latent, parameters = posterior.infer(memory, posterior.project(embedding), noise)
    weight = torch.arange(1.0, 5)
    score = (latent * weight).sum() + posterior.distribution(parameters).log_prob(latent.detach()).sum()
    for gradient in torch.autograd.grad(score, [memory, embedding, *posterior.parameters()]):
        assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("name", MAKERS)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    posterior = make(name)
    draws = []
    for seed in (0, 0, 1):
        noise = posterior.noise((50,), CPU, torch.Generator().manual_seed(seed))
        draws.append(posterior.infer(torch.ones(50, 5), posterior.project(torch.ones(50, 3)), noise)[0])
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_linear_posterior_is_one_matrix_and_a_bias() -> None:
    posterior = make("linear")
    assert isinstance(posterior, AmortisedPosterior)
    memory, embedding = torch.randn(6, 5), torch.randn(6, 3)
    net = posterior.net
    expected = memory @ net.join.weight.T + embedding @ net.project.weight.T + net.project.bias
    assert torch.allclose(posterior.parameters_at(memory, posterior.project(embedding)), expected, atol=1e-6)
