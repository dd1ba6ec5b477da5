"""The full-covariance family, and KL between Gaussians with and without a diagonal covariance."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal

from worldvae.distributions import (
    CategoricalFamily,
    FullGaussianFamily,
    GaussianFamily,
    LatentFamily,
    detached,
    full_precision,
    has_kl,
    kl,
)

CPU = torch.device("cpu")
FULL, DIAGONAL = FullGaussianFamily(3), GaussianFamily(3)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make(family: LatentFamily, seed: int, *batch: int) -> Distribution:
    return family(random(*batch, family.parameter_size, seed=seed))


@pytest.mark.parametrize("size", [1, 2, 5])
@given(shape=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_any_leading_shape(size: int, shape: list[int], seed: int) -> None:
    family = FullGaussianFamily(size)
    assert isinstance(family, LatentFamily)
    assert family.parameter_size == 2 * size + size * (size - 1) // 2
    parameters = random(*shape, family.parameter_size, seed=seed)
    latent = family.sample(parameters, family.noise(tuple(shape), CPU, torch.Generator().manual_seed(seed)))
    q = family(parameters)
    assert latent.shape == family.mode(parameters).shape == (*shape, size)
    assert q.batch_shape == tuple(shape) and q.event_shape == (size,)
    assert torch.equal(family.mode(parameters), q.mean)
    assert bool((family(parameters.double()).scale_tril.diagonal(dim1=-2, dim2=-1) >= 1e-3).all())


def test_samples_have_the_covariance_of_the_distribution(generator: torch.Generator) -> None:
    parameters, number = random(FULL.parameter_size, seed=1), 40_000
    q = FULL(parameters)
    samples = FULL.sample(parameters.expand(number, -1), FULL.noise((number,), CPU, generator))
    centred = samples - q.mean
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    error = products.std(0) / math.sqrt(number)
    assert bool(((products.mean(0) - q.covariance_matrix).abs() < 4 * error).all())
    off_diagonal = q.covariance_matrix - torch.diag(q.covariance_matrix.diagonal())
    assert float(off_diagonal.abs().max()) > 10 * float(error.max())  # otherwise the test would prove nothing
    assert bool((centred.mean(0).abs() < 4 * centred.std(0) / math.sqrt(number)).all())


def test_every_gaussian_has_parameters() -> None:
    wanted = MultivariateNormal(torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.9], [0.9, 0.7]]))
    family, scale = FullGaussianFamily(2, min_std=0.0), wanted.scale_tril
    raw = scale.diagonal().expm1().log() + 1
    q = family(torch.cat([wanted.loc, raw, scale[1, :1]]))
    assert torch.allclose(q.covariance_matrix, wanted.covariance_matrix, atol=1e-5)
    value = torch.randn(5, 2)
    assert torch.allclose(q.log_prob(value), wanted.log_prob(value), atol=1e-4)


@pytest.mark.parametrize(("first", "second"), [(FULL, FULL), (FULL, DIAGONAL), (DIAGONAL, FULL)])
def test_kl_agrees_with_monte_carlo(first: LatentFamily, second: LatentFamily, generator: torch.Generator) -> None:
    parameters, number = random(first.parameter_size, seed=2), 40_000
    q, p = first(parameters), make(second, 3)
    assert has_kl(q, p)
    samples = first.sample(parameters.expand(number, -1), first.noise((number,), CPU, generator))
    ratios = q.log_prob(samples) - p.log_prob(samples)
    assert float((ratios.mean() - kl(q, p)).abs()) < 4 * float(ratios.std()) / math.sqrt(number)
    assert float(kl(q, p)) > 0.1


def test_kl_has_any_batch_shape_is_never_negative_and_agrees_on_diagonals() -> None:
    pairs = [(a, b) for a in (FULL, DIAGONAL) for b in (FULL, DIAGONAL)]
    for a, b in pairs:
        assert kl(make(a, 0, 4, 5), make(b, 1, 4, 5)).shape == (4, 5)
        assert bool((kl(make(a, 0, 50), make(b, 1, 50)) > 0).all())
    q, p = make(DIAGONAL, 0, 7), make(DIAGONAL, 1, 7)
    full = MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.stddev))
    assert torch.allclose(kl(full, p), kl(q, p), atol=1e-4)
    assert torch.allclose(kl(p, full), kl(p, q), atol=1e-4)
    assert torch.allclose(kl(full, q), torch.zeros(7), atol=1e-5)


def test_there_is_no_closed_form_against_a_categorical() -> None:
    categorical = make(CategoricalFamily(1, 3), 0)
    assert not has_kl(make(FULL, 0), categorical) and not has_kl(categorical, make(FULL, 0))
    assert has_kl(make(DIAGONAL, 0), make(DIAGONAL, 1)) and has_kl(categorical, categorical)


def test_detached_keeps_the_value_and_cuts_the_gradient() -> None:
    parameters = random(4, FULL.parameter_size, seed=0).requires_grad_()
    q, p = FULL(parameters), make(FULL, 1, 4)
    assert torch.equal(kl(detached(q), p), kl(q, p))
    assert kl(q, p).requires_grad and not kl(detached(q), p).requires_grad


@pytest.mark.parametrize("kinds", [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")])
def test_full_precision_never_loses_any(kinds: tuple[str, str]) -> None:
    before, after = (getattr(torch, kind) for kind in kinds)
    assert full_precision(torch.ones(2, dtype=before)).dtype == after
