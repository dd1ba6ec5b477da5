"""Likelihoods of pixels: probabilities sum to one, and agree with torch and with brute force."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Normal

from worldvae.likelihoods import (
    BernoulliImageLikelihood,
    CategoricalLevels,
    CategoricalLikelihood,
    DiscretisedLogistic,
    DiscretisedLogisticLikelihood,
    HeteroscedasticLikelihood,
)

SHAPE = (2, 3, 4)
LEVELS = torch.linspace(0, 1, 256, dtype=torch.float64)


class Trunk(nn.Module):
    """Maps features of length 5 to `numbers` times an image."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.linear = nn.Linear(5, numbers * math.prod(SHAPE))
        self.shape = (numbers * SHAPE[0], *SHAPE[1:])

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features).unflatten(-1, self.shape)


MAKERS = {
    "bernoulli": lambda: BernoulliImageLikelihood(Trunk(1), SHAPE),
    "heteroscedastic": lambda: HeteroscedasticLikelihood(Trunk(2), SHAPE),
    "logistic": lambda: DiscretisedLogisticLikelihood(Trunk(2), SHAPE),
    "categorical": lambda: CategoricalLikelihood(Trunk(16), SHAPE, 16),
}


@pytest.mark.parametrize("name", MAKERS)
@given(batch=st.lists(st.integers(1, 3), max_size=3))
@settings(max_examples=8, deadline=None)
def test_any_batch_shape(name: str, batch: list[int]) -> None:
    likelihood = MAKERS[name]()
    with torch.no_grad():
        x = likelihood(torch.randn(*batch, 5))
    assert x.batch_shape == tuple(batch) and x.event_shape == SHAPE
    assert x.mean.shape == (*batch, *SHAPE)
    value = torch.randint(0, 2, (*batch, *SHAPE)).float()
    assert x.log_prob(value).shape == tuple(batch)
    assert bool(torch.isfinite(x.log_prob(value)).all())
    samples = x.sample((3,))
    assert samples.shape == (3, *batch, *SHAPE)
    assert x.log_prob(value.expand(4, *value.shape)).shape == (4, *batch)
    if name != "heteroscedastic":
        assert float(x.mean.min()) >= 0 and float(x.mean.max()) <= 1
        assert float(samples.min()) >= 0 and float(samples.max()) <= 1


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_reach_the_trunk_and_double_stays_double(name: str) -> None:
    likelihood = MAKERS[name]().double()
    x = likelihood(torch.randn(6, 5, dtype=torch.float64))
    log_prob = x.log_prob(torch.randint(0, 2, (6, *SHAPE)).double())
    assert log_prob.dtype == torch.float64
    for gradient in torch.autograd.grad(log_prob.sum(), list(likelihood.parameters())):
        assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0


@given(loc=st.floats(-0.5, 1.5), log_scale=st.floats(-7.6, 2))
@settings(max_examples=40, deadline=None)
def test_logistic_probabilities_sum_to_one(loc: float, log_scale: float) -> None:
    ours = DiscretisedLogistic(*torch.tensor([[[loc]], [[math.exp(log_scale)]]], dtype=torch.float64), 1)
    probs = ours.log_prob(LEVELS.unsqueeze(-1)).exp()
    assert float(probs.sum()) == pytest.approx(1, abs=1e-9)
    assert abs(float(probs @ LEVELS) - float(ours.mean)) < 0.5 / 255 + 1e-9


def test_logistic_is_the_difference_of_two_cdfs_and_its_ends_take_the_tails() -> None:
    def cdf(x: float) -> float:
        return 1 / (1 + math.exp(-(x - 0.3) / 0.1))

    ours = DiscretisedLogistic(*torch.tensor([[[0.3]], [[0.1]]], dtype=torch.float64), 1)
    for k in (0, 1, 77, 254, 255):
        upper = 1.0 if k == 255 else cdf((k + 0.5) / 255)
        lower = 0.0 if k == 0 else cdf((k - 0.5) / 255)
        assert float(ours.log_prob(torch.tensor([[k / 255]], dtype=torch.float64))) == pytest.approx(
            math.log(upper - lower), abs=1e-9
        )


def test_logistic_is_finite_far_out_in_single_precision() -> None:
    ours = DiscretisedLogistic(torch.zeros(1, 1), torch.full((1, 1), 5e-4), 1)
    for k in (50, 100, 254, 255):
        expected = -(k - 0.5) / 255 / 5e-4  # the tail of a logistic is exponential
        assert float(ours.log_prob(torch.tensor([[k / 255]]))) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("name", ["logistic", "categorical", "bernoulli"])
def test_samples_have_the_mean_and_are_levels(name: str) -> None:
    x = MAKERS[name]()(torch.randn(5))
    samples = x.sample((4000,))
    error = 4.5 * samples.std(0) / math.sqrt(4000) + (0.5 / 255 if name == "logistic" else 0)
    assert bool(((samples.mean(0) - x.mean).abs() <= error).all())
    top = {"logistic": 255, "categorical": 15, "bernoulli": 1}[name]
    assert torch.allclose(samples * top, torch.round(samples * top), atol=1e-4)


def test_categorical_is_that_of_torch() -> None:
    likelihood = CategoricalLikelihood(Trunk(16), SHAPE, 16)
    features = torch.randn(7, 5)
    logits = likelihood.trunk(features).view(7, 16, *SHAPE)
    theirs = Categorical(logits=logits.movedim(1, -1))
    index = torch.randint(0, 16, (7, *SHAPE))
    expected = theirs.log_prob(index).sum((1, 2, 3))
    ours = likelihood(features)
    assert torch.allclose(ours.log_prob(index), expected, atol=1e-4)
    assert torch.allclose(ours.log_prob(index / 15), expected, atol=1e-4)
    assert torch.allclose(ours.mean, (theirs.probs * torch.arange(16) / 15).sum(-1), atol=1e-6)
    assert torch.allclose(ours.probs.sum(-1), torch.ones(7, *SHAPE), atol=1e-5)


def test_a_label_is_an_event_without_axes() -> None:
    likelihood = CategoricalLikelihood(nn.Linear(5, 10), (), 10)
    features, label = torch.randn(7, 5), torch.randint(0, 10, (7,))
    expected = -nn.functional.cross_entropy(likelihood.trunk(features), label, reduction="none")
    assert isinstance(likelihood(features), CategoricalLevels)
    assert torch.allclose(likelihood(features).log_prob(label), expected, atol=1e-6)


def test_bernoulli_image_is_that_of_torch() -> None:
    likelihood = BernoulliImageLikelihood(Trunk(1), SHAPE)
    features, x = torch.randn(7, 5), torch.randint(0, 2, (7, *SHAPE)).float()
    expected = Bernoulli(logits=likelihood.trunk(features)).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(likelihood(features).log_prob(x), expected, atol=1e-5)


def test_heteroscedastic_is_that_of_torch_and_starts_where_it_is_told() -> None:
    likelihood = HeteroscedasticLikelihood(Trunk(2), SHAPE, sigma=0.3, offset=0.4, floor=0.1)
    features, x = torch.randn(7, 5), torch.rand(7, *SHAPE)
    out = likelihood.trunk(features)
    raw = out[:, 2:] + math.log(math.expm1(0.2))
    expected = Normal(0.4 + out[:, :2], 0.1 + raw.exp().log1p()).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(likelihood(features).log_prob(x), expected, atol=1e-4)
    for parameter in likelihood.parameters():
        parameter.data.zero_()
    untrained = likelihood(features)
    assert torch.allclose(untrained.stddev, torch.full((7, *SHAPE), 0.3))
    assert torch.allclose(untrained.mean, torch.full((7, *SHAPE), 0.4))


def test_heteroscedastic_learns_where_the_noise_is() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(2000, 1, generator=generator)
    x = z + (0.1 + 0.4 * z) * torch.randn(2000, 1, generator=generator)
    likelihood = HeteroscedasticLikelihood(nn.Linear(1, 2), (1,))
    adam = torch.optim.Adam(likelihood.parameters(), lr=0.03)
    for _ in range(400):
        adam.zero_grad()
        (-likelihood(z).log_prob(x).mean()).backward()
        adam.step()
    ends = likelihood(torch.tensor([[0.2], [0.8]])).stddev[:, 0].detach()
    assert ends.tolist() == pytest.approx([0.18, 0.42], rel=0.15)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HeteroscedasticLikelihood(Trunk(2), SHAPE, sigma=0.01), "sigma=0.01"),
        (lambda: DiscretisedLogisticLikelihood(Trunk(2), SHAPE, scale=0.0), "scale=0.0"),
        (lambda: CategoricalLikelihood(Trunk(1), SHAPE, 1), "classes=1"),
    ],
)
def test_mistakes_are_named(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
