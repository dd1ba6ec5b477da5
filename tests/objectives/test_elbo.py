"""The ELBO: its terms row by row, the paths of their gradients, decoding of subsets, and an exact log-likelihood."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal

from worldvae.distributions import IsotropicGaussian, kl, symexp, symlog
from worldvae.memory import LatentState
from worldvae.models.probabilistic import Inferred
from worldvae.models.senses import unit
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.objectives import ELBOConfig, Terms, elbo_loss
from worldvae.types import Batch, Observation

Maker = Callable[..., SequentialVAE]
Rows = Callable[..., Batch]


def terms(size: int = 2, length: int = 3, **values: float) -> Terms:
    names = ("pixels", "vector", "reward", "continuation", "kl_dynamics", "kl_representation")
    return Terms(**{name: torch.full((size, length), values.get(name, 0.0)) for name in names})


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_every_term_is_its_definition_and_keeps_batch_and_time(
    make_model: Maker, make_batch: Rows, generator: torch.Generator, latent: str
) -> None:
    model = make_model((1, 8, 12), vector=3, latent=latent)
    rows = make_batch(model, 2, 5)
    observed = model.observe(rows, generator=generator)
    found = model.elbo(rows, observed)
    states, seen = observed.posterior, rows.observation
    assert seen.pixels is not None and seen.vector is not None
    q, p = model.posterior.distribution(observed.parameters), model.prior(states.memory)
    expected = {
        "pixels": model.decode(states).log_prob(unit(seen.pixels)),
        "vector": model.decode(states, "vector").log_prob(symlog(seen.vector)),
        "reward": model.reward(states).log_prob(rows.reward),
        "continuation": torch.where(
            rows.termination, (1 - model.continuation(states).mean).log(), model.continuation(states).mean.log()
        ),
        "kl_dynamics": kl(q, p),
        "kl_representation": kl(q, p),
    }
    for name, value in expected.items():
        assert getattr(found, name).shape == (2, 5)
        assert torch.allclose(getattr(found, name), value, rtol=1e-4, atol=1e-3), name
    likelihood = sum(expected[name] for name in ("pixels", "vector", "reward", "continuation"))
    assert torch.allclose(found.bound, likelihood - expected["kl_dynamics"], rtol=1e-4, atol=1e-2)


def test_an_absent_modality_has_no_term(make_model: Maker, make_batch: Rows, generator: torch.Generator) -> None:
    model = make_model(None, vector=3)
    rows = make_batch(model, 2, 3)
    found = model.elbo(rows, model.observe(rows, generator=generator))
    assert found.pixels is None and found.vector is not None
    assert found.bound.shape == (2, 3)
    assert torch.isfinite(elbo_loss(found, ELBOConfig()))


@pytest.mark.parametrize("decode_steps", [0, 6, 9])
def test_decoding_is_exact_when_every_step_is_picked(
    make_model: Maker, make_batch: Rows, generator: torch.Generator, decode_steps: int
) -> None:
    model = make_model()
    rows = make_batch(model, 3, 6)
    observed = model.observe(rows, generator=generator)
    full = model.decode(observed.posterior).log_prob(unit(rows.observation.pixels))  # type: ignore[arg-type]
    assert torch.allclose(model.elbo(rows, observed, decode_steps, generator).pixels, full, atol=1e-3)  # type: ignore[arg-type]


def test_decoding_a_subset_is_unbiased(make_model: Maker, make_batch: Rows, generator: torch.Generator) -> None:
    model = make_model()
    rows = make_batch(model, 3, 6)
    with torch.no_grad():
        observed = model.observe(rows, generator=generator)
        full = model.elbo(rows, observed).pixels
        draws = [model.elbo(rows, observed, 2, generator).pixels for _ in range(300)]
    assert full is not None
    found = torch.stack([draw for draw in draws if draw is not None])
    assert bool(((found != 0).sum((1, 2)) == 3 * 2).all())  # two of six steps per slice, on average
    assert torch.allclose(found[0][found[0] != 0], 3 * full[found[0] != 0], rtol=1e-4)
    assert bool(((found.mean(0) - full).abs() < 4 * found.std(0) / math.sqrt(300)).all())
    means = found.mean((1, 2))
    assert abs(float(means.mean() - full.mean())) < 4 * float(means.std()) / math.sqrt(300)


def test_the_same_seed_picks_the_same_frames(make_model: Maker, make_batch: Rows) -> None:
    model = make_model()
    rows = make_batch(model, 2, 6)
    observed = model.observe(rows, generator=torch.Generator().manual_seed(0))
    picks = [model.elbo(rows, observed, 2, torch.Generator().manual_seed(s)).pixels for s in (1, 1, 2)]
    assert torch.equal(picks[0], picks[1])  # type: ignore[arg-type]
    assert not torch.equal(picks[0], picks[2])  # type: ignore[arg-type]


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_each_kl_reaches_one_side_only(
    make_model: Maker, make_batch: Rows, monkeypatch: pytest.MonkeyPatch, latent: str
) -> None:
    model = make_model(latent=latent)
    rows = make_batch(model, 2, 3)
    states = model.observe(rows, generator=torch.Generator().manual_seed(0)).posterior
    q = torch.randn(2, 3, model.family.parameter_size, requires_grad=True)
    p = torch.randn(2, 3, model.family.parameter_size, requires_grad=True)
    monkeypatch.setattr(model.prior, "parameters_at", lambda memory: p)
    found = model.elbo(rows, Inferred(states, q))
    to_q, to_p = torch.autograd.grad(found.kl_dynamics.sum(), [q, p], allow_unused=True, retain_graph=True)
    assert to_q is None and bool((to_p.abs().amax(-1) > 0).all())
    to_q, to_p = torch.autograd.grad(found.kl_representation.sum(), [q, p], allow_unused=True)
    assert to_p is None and bool((to_q.abs().amax(-1) > 0).all())


def test_the_loss_reaches_every_parameter(make_model: Maker, make_batch: Rows, generator: torch.Generator) -> None:
    model = make_model((1, 8, 12), vector=3)
    rows = make_batch(model, 2, 5)
    loss = elbo_loss(model.elbo(rows, model.observe(rows, generator=generator)), ELBOConfig(free_nats=0.0))
    names, parameters = zip(*model.named_parameters(), strict=True)
    for name, gradient in zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True):
        assert gradient is not None and float(gradient.abs().max()) > 0, name


def test_a_known_loss() -> None:
    found = terms(pixels=-7.0, vector=-2.0, reward=-3.0, continuation=-0.5, kl_dynamics=4.0, kl_representation=4.0)
    assert float(found.bound[0, 0]) == -7 - 2 - 3 - 0.5 - 4
    config = ELBOConfig(free_nats=1.0, dynamics=0.5, representation=0.1, reward=2.0, continuation=10.0)
    assert float(elbo_loss(found, config)) == pytest.approx(7 + 2 + 2 * 3 + 10 * 0.5 + 0.5 * 4 + 0.1 * 4)


def test_free_nats_are_per_step_on_the_sum_and_stop_the_gradient() -> None:
    values = torch.tensor([[0.2, 3.0]], requires_grad=True)
    zero = torch.zeros(1, 2)
    loss = elbo_loss(Terms(None, None, zero, zero, values, zero + 5), ELBOConfig(free_nats=1.0, representation=0.0))
    assert float(loss.detach()) == pytest.approx((1 + 3) / 2)  # applied after the mean, it would be 1.6
    assert torch.autograd.grad(loss, values)[0].tolist() == [[0.0, 0.5]]


def test_estimated_kls_are_held_against_the_free_nats_by_their_mean() -> None:
    values = torch.tensor([[-1.0, 2.0, 0.5]], requires_grad=True)
    zero = torch.zeros(1, 3)
    for free, expected in ((0.4, 0.5), (0.6, 0.6)):
        loss = elbo_loss(
            Terms(None, None, zero, zero, values, zero), ELBOConfig(free_nats=free, representation=0.0), True
        )
        assert float(loss.detach()) == pytest.approx(expected)
        if free < 0.5:
            assert bool(torch.autograd.grad(loss, values)[0].any())
        else:
            assert not torch.autograd.grad(loss, values)[0].any()


def test_free_nats_are_on_the_sum_over_latents(
    make_model: Maker, make_batch: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four latents of 0.5 nats each sum to 2 nats: above one free nat, although each latent is below it."""
    model = make_model()
    rows = make_batch(model, 1, 2)
    states = model.observe(rows, generator=torch.Generator().manual_seed(0)).posterior
    p = torch.zeros(1, 2, 8)
    deviation = float(model.family(p).stddev[0, 0, 0])
    q = torch.cat([torch.full((1, 2, 4), deviation), torch.zeros(1, 2, 4)], -1)  # a mean of one deviation: 1/2 nat each
    monkeypatch.setattr(model.prior, "parameters_at", lambda memory: p)
    found = model.elbo(rows, Inferred(states, q))
    assert torch.allclose(found.kl_dynamics, torch.full((1, 2), 2.0), atol=1e-4)


@given(likelihood=st.floats(-50, 50), free=st.floats(0, 5), value=st.floats(0, 10))
@settings(max_examples=30, deadline=None)
def test_without_weights_or_free_nats_the_loss_is_the_negative_bound(
    likelihood: float, free: float, value: float
) -> None:
    found = terms(pixels=likelihood, kl_dynamics=value, kl_representation=value)
    bound = elbo_loss(found, ELBOConfig(free_nats=0.0, dynamics=0.9, representation=0.1))
    assert float(bound) == pytest.approx(-float(found.bound.mean()), abs=1e-4)
    assert float(elbo_loss(found, ELBOConfig(free_nats=free, dynamics=0.9, representation=0.1))) >= float(bound) - 1e-4


def test_with_the_exact_posterior_the_bound_is_the_log_likelihood(
    make_model: Maker, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A linear-Gaussian world of one step: x = W z + m + e, z from the family's N(0, s^2), e from N(0, 0.3^2)."""
    model = make_model(None, vector=2, gaussian=1)
    number, noise, offset = 20_000, 0.3, torch.tensor([0.5, -0.2])
    weight = torch.tensor([0.8, 0.4])
    p = torch.tensor([0.0, 2.0])
    scale = float(model.family(p).stddev)
    x = torch.tensor([1.0, 0.3])
    # Posterior: precision 1/s^2 + W'W/0.3^2.
    variance = 1 / (1 / scale**2 + float(weight @ weight) / noise**2)
    mean = variance * float(weight @ (x - offset)) / noise**2
    raw = 2 * (2.2 + math.log((math.sqrt(variance) - 0.1) / (2 - (math.sqrt(variance) - 0.1))))
    q = torch.tensor([mean, raw])
    assert float(model.family(q).stddev) == pytest.approx(math.sqrt(variance), rel=1e-5)

    def decode(features: Tensor, modality: str) -> IsotropicGaussian:
        return IsotropicGaussian(features[..., 16:] * weight + offset, torch.tensor([noise]), 1)

    monkeypatch.setattr(model.senses, "decode", decode)
    shape = (number, 1)
    latent = model.family.sample(q.expand(*shape, 2), model.family.noise(shape, model.device, generator))
    no = torch.zeros(shape, dtype=torch.bool)
    seen = Observation(vector=symexp(x).expand(*shape, 2))
    rows = Batch(seen, torch.zeros(*shape, 2), torch.zeros(shape), no, ~no)
    monkeypatch.setattr(model.prior, "parameters_at", lambda memory: p.expand(*shape, 2))
    observed = Inferred(LatentState(torch.zeros(*shape, 16), latent), q.expand(*shape, 2))
    with torch.no_grad():
        found = model.elbo(rows, observed)
    draws: Tensor = (found.bound - found.reward - found.continuation).flatten()
    exact = MultivariateNormal(offset, scale**2 * torch.outer(weight, weight) + noise**2 * torch.eye(2)).log_prob(x)
    assert abs(float(draws.mean() - exact)) < 4 * float(draws.std()) / math.sqrt(number)
