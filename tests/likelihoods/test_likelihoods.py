"""Likelihoods: learned sigma, floor, normalisation on a grid, and the exact initial prediction."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal
from torch.nn import functional as F

from worldvae.likelihoods import (
    BernoulliLikelihood,
    GaussianLikelihood,
    ScalarGaussianLikelihood,
    TwoHotLikelihood,
)
from worldvae.networks import MLP


class Fixed(nn.Module):
    """A trunk that returns the same numbers for every input."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, features: Tensor) -> Tensor:
        return self.values.expand(*features.shape[:-1], len(self.values))


def fit(likelihood: GaussianLikelihood, data: Tensor, steps: int = 250) -> None:
    adam = torch.optim.Adam(likelihood.parameters(), lr=0.05)
    for _ in range(steps):
        adam.zero_grad()
        (-likelihood(torch.zeros(len(data), 1)).log_prob(data).mean()).backward()
        adam.step()


def test_a_learned_sigma_reaches_the_deviation_of_the_data() -> None:
    data = torch.randn(500, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.3, 2.0]) + 1
    each = GaussianLikelihood(Fixed(0.0, 0.0), (2,), learned="each")
    fit(each, data)
    assert torch.allclose(each.sigma.detach(), data.std(0, correction=0), rtol=0.02)
    assert torch.allclose(each(torch.zeros(1, 1)).mean[0].detach(), data.mean(0), atol=0.02)
    shared = GaussianLikelihood(Fixed(0.0, 0.0), (2,), learned="shared")
    fit(shared, data)
    pooled = (data - data.mean(0)).square().mean().sqrt()
    assert shared.sigma.shape == (1,) or shared.sigma.shape == (2,)
    assert torch.allclose(shared.sigma.detach(), pooled, rtol=0.02)


def test_the_floor_holds_where_the_data_have_no_noise() -> None:
    likelihood = GaussianLikelihood(Fixed(0.0), (1,), learned="shared", floor=0.2)
    fit(likelihood, torch.zeros(4, 1), steps=400)
    assert 0.2 <= float(likelihood.sigma.detach()) < 0.2 * 1.02


@pytest.mark.parametrize("learned", [None, "shared", "each"])
def test_sigma_starts_where_it_is_told_and_only_a_learned_one_has_parameters(learned: str | None) -> None:
    likelihood = GaussianLikelihood(nn.Identity(), (3,), sigma=0.7, learned=learned)
    assert torch.allclose(likelihood.sigma.detach(), torch.full((3,), 0.7))
    assert [name for name, _ in likelihood.named_parameters()] == ([] if learned is None else ["log_sigma"])
    assert {"offset", "scale", "log_sigma"} <= set(likelihood.state_dict())


@pytest.mark.parametrize(("learned", "sigma"), [(None, 0.0), (None, -1.0), ("each", 0.05), ("shared", 0.01)])
def test_a_sigma_that_cannot_be_is_refused(learned: str | None, sigma: float) -> None:
    with pytest.raises(ValueError, match=f"sigma={sigma} must be above"):
        GaussianLikelihood(nn.Identity(), (3,), sigma=sigma, learned=learned)


def test_vectors_are_scaled_and_frames_are_not() -> None:
    features = torch.tensor([[1.0, -2.0]])
    vector = GaussianLikelihood(nn.Identity(), (2,), sigma=0.5)
    vector.offset.copy_(torch.tensor([10.0, 20.0]))
    vector.scale.copy_(torch.tensor([3.0, 4.0]))
    assert vector(features).mean.tolist() == [[13.0, 12.0]]
    assert vector(features).stddev.tolist() == [[1.5, 2.0]]
    frames = GaussianLikelihood(nn.Unflatten(-1, (1, 1, 2)), (1, 1, 2), sigma=0.5, offset=0.5)
    assert frames(features).mean.flatten().tolist() == [1.5, -1.5]
    assert frames(features).stddev.unique().tolist() == [0.5]
    assert frames(features).batch_shape == (1,)


def test_gaussian_log_prob_against_torch() -> None:
    likelihood = GaussianLikelihood(nn.Identity(), (4,), sigma=0.6, learned="each", offset=0.3)
    features, x = torch.randn(7, 4), torch.randn(7, 4)
    expected = Normal(features + 0.3, 0.6).log_prob(x).sum(-1)
    assert torch.allclose(likelihood(features).log_prob(x), expected, atol=1e-4)


@pytest.mark.parametrize("learned", [None, "shared", "each"])
def test_the_gaussian_density_integrates_to_one(learned: str | None) -> None:
    likelihood = GaussianLikelihood(Fixed(0.4), (1,), sigma=0.3, learned=learned, offset=-0.2)
    likelihood.scale.fill_(2.0)
    grid = torch.linspace(-8, 8, 4001).unsqueeze(-1)
    density = likelihood(torch.zeros(4001, 1)).log_prob(grid).exp()
    assert float(torch.trapezoid(density, grid[:, 0]).detach()) == pytest.approx(1, abs=1e-4)


@given(logit=st.floats(-30, 30))
@settings(max_examples=25, deadline=None)
def test_bernoulli_is_the_cross_entropy_of_the_logit(logit: float) -> None:
    likelihood = BernoulliLikelihood(Fixed(logit))
    bit = likelihood(torch.zeros(2, 3, 1))
    assert isinstance(bit, Bernoulli)
    assert bit.batch_shape == (2, 3)
    assert float(bit.mean[0, 0].detach()) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)
    for value in (0.0, 1.0):
        expected = -F.binary_cross_entropy_with_logits(torch.tensor(logit), torch.tensor(value))
        assert float(bit.log_prob(torch.full((2, 3), value))[1, 2].detach()) == pytest.approx(float(expected), abs=1e-4)
    total = bit.log_prob(torch.zeros(2, 3)).exp() + bit.log_prob(torch.ones(2, 3)).exp()
    assert torch.allclose(total, torch.ones(2, 3), atol=1e-5)


def test_two_hot_starts_at_zero() -> None:
    likelihood = TwoHotLikelihood(MLP(4, 8, 1, 41, zero=True))
    reward = likelihood(torch.randn(2, 3, 4))
    assert torch.equal(reward.mean.detach(), torch.zeros(2, 3))
    assert reward.batch_shape == (2, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert likelihood(torch.randn(2, 4)).logits.dtype == torch.float32


def test_a_scalar_gaussian_is_torchs_in_the_units_of_the_data() -> None:
    likelihood = ScalarGaussianLikelihood(Fixed(0.5), floor=0.1)
    likelihood.offset.fill_(-3.0)
    likelihood.scale.fill_(4.0)
    found, values = likelihood(torch.zeros(2, 3, 1)), torch.randn(2, 3)
    assert torch.allclose(found.mean, torch.full((2, 3), -3 + 4 * 0.5))
    assert torch.allclose(found.log_prob(values), Normal(-1.0, 4.0).log_prob(values))  # an untrained sigma is 1
    with torch.no_grad():
        likelihood.log_sigma.fill_(-100.0)
    assert torch.allclose(likelihood(torch.zeros(1, 1)).stddev, torch.tensor(4 * 0.1))
    with torch.autocast("cpu", torch.bfloat16):
        assert ScalarGaussianLikelihood(MLP(4, 8, 1, 1))(torch.randn(2, 4)).mean.dtype == torch.float32
