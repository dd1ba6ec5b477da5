"""Latent families, KL, the isotropic Gaussian and the two-hot, compared with torch, formulas and sample statistics."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, Normal

from worldvae.distributions import (
    CategoricalFamily,
    FlatOneHot,
    GaussianFamily,
    IsotropicGaussian,
    LatentFamily,
    TwoHot,
    kl,
    one_hot_draw,
    symexp,
    symlog,
)

CPU = torch.device("cpu")
FAMILIES = [GaussianFamily(4), CategoricalFamily(2, 3)]
few = settings(max_examples=30, deadline=None)


def draw(family: LatentFamily, parameters: Tensor, number: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = family.noise((number, *parameters.shape[:-1]), CPU, generator)
    return family.sample(parameters.expand(number, *parameters.shape), noise)


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@given(shape=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 99))
@few
def test_any_leading_shape(family: LatentFamily, shape: list[int], seed: int) -> None:
    parameters = random(*shape, family.parameter_size, seed=seed)
    latent = family.sample(parameters, family.noise(tuple(shape), CPU, torch.Generator().manual_seed(seed)))
    assert latent.shape == family.mode(parameters).shape == (*shape, family.latent_size)
    distribution = family(parameters)
    assert distribution.batch_shape == tuple(shape)
    assert distribution.event_shape == (family.latent_size,)
    assert distribution.log_prob(latent).shape == tuple(shape)
    assert isinstance(family, LatentFamily)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_samples_have_the_mean_of_the_distribution(family: LatentFamily) -> None:
    parameters = random(family.parameter_size, seed=1)
    samples = draw(family, parameters, 20_000)
    error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - family(parameters).mean).abs() < 4 * error).all()


def test_gaussian_samples_have_the_standard_deviation_of_the_distribution() -> None:
    family, parameters = FAMILIES[0], random(8, seed=1)
    samples = draw(family, parameters, 20_000)
    assert torch.allclose(samples.std(0), family(parameters).stddev, rtol=4 / math.sqrt(2 * 20_000))
    assert torch.equal(family.mode(parameters), parameters[:4])


def test_an_untrained_gaussian_is_narrow_and_its_deviation_stays_between_its_bounds() -> None:
    family = GaussianFamily(1)
    deviations = [float(family(torch.tensor([0.0, raw])).stddev) for raw in (-1e3, 0.0, 1e3)]
    assert deviations == pytest.approx([0.1, 2 / (1 + math.exp(2.2)) + 0.1, 2.1])


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_the_same_seed_gives_the_same_bits_and_another_does_not(family: LatentFamily) -> None:
    parameters = random(family.parameter_size, seed=1)
    assert torch.equal(draw(family, parameters, 50, seed=3), draw(family, parameters, 50, seed=3))
    assert not torch.equal(draw(family, parameters, 50, seed=3), draw(family, parameters, 50, seed=4))


def test_gaussian_gradient_is_that_of_mean_plus_std_times_noise() -> None:
    family = GaussianFamily(1)
    parameters = torch.tensor([0.3, 0.7], requires_grad=True)
    noise = torch.tensor([1.5])
    gradient = torch.autograd.grad(family.sample(parameters, noise).sum(), parameters)[0]
    sigmoid = 1 / (1 + math.exp(-(0.7 / 2 - 2.2)))
    assert gradient.tolist() == pytest.approx([1.0, 1.5 * sigmoid * (1 - sigmoid)])  # d std / d raw = s (1 - s)


@given(seed=st.integers(0, 999))
@few
def test_categorical_samples_are_exact_one_hots_whose_gradient_is_that_of_the_probabilities(seed: int) -> None:
    family = CategoricalFamily(3, 4)
    parameters = random(5, 12, seed=seed).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    weight = random(5, 12, seed=seed + 1)
    for latent in (family.sample(parameters, family.noise((5,), CPU, generator)), family.mode(parameters)):
        blocks = latent.detach().view(5, 3, 4)
        assert torch.equal(blocks.sum(-1), torch.ones(5, 3))
        assert torch.equal(blocks.max(-1).values, torch.ones(5, 3))
        ours = torch.autograd.grad((latent * weight).sum(), parameters)[0]
        probs = 0.99 * torch.softmax(parameters.view(5, 3, 4), -1) + 0.01 / 4
        theirs = torch.autograd.grad((probs.flatten(-2) * weight).sum(), parameters)[0]
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_one_hot_draw_follows_the_probabilities(generator: torch.Generator) -> None:
    probs, number = torch.tensor([0.0, 0.1, 0.0, 0.9, 0.0]), 20_000
    drawn = one_hot_draw(probs.expand(number, 5), torch.rand(number, generator=generator))
    assert drawn[:, [0, 2, 4]].sum() == 0
    assert abs(float(drawn[:, 3].mean()) - 0.9) < 4 * math.sqrt(0.9 * 0.1 / number)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_outermost_uniform_numbers_draw_a_class_that_is_possible(uniform: float) -> None:
    probs = torch.tensor([[0.0, 1.0, 0.0], [0.1, 0.2, 0.7], [0.0, 0.3, 0.7], [1 / 3, 1 / 3, 1 / 3]])
    drawn = one_hot_draw(probs, torch.full((4,), uniform))
    assert torch.equal(drawn.sum(-1), torch.ones(4))
    assert bool(((drawn == 0) | (drawn == 1)).all())
    assert bool((probs[drawn == 1] > 0).all())


def test_flat_one_hot_is_a_product_of_categoricals() -> None:
    probs = torch.softmax(random(7, 3, 4, seed=0), -1)
    ours, theirs = FlatOneHot(probs), Categorical(probs)
    classes = theirs.sample()
    value = torch.nn.functional.one_hot(classes, 4).float().flatten(-2)
    assert torch.allclose(ours.log_prob(value), theirs.log_prob(classes).sum(-1), atol=1e-6)
    assert torch.allclose(ours.entropy(), theirs.entropy().sum(-1), atol=1e-6)
    assert ours.rsample(torch.Size([2])).shape == (2, 7, 12)
    assert torch.allclose(ours.mean, probs.flatten(-2))


@given(seed=st.integers(0, 9999), spread=st.floats(0.1, 30))
@few
def test_kl_is_never_negative_and_zero_only_against_itself(seed: int, spread: float) -> None:
    for family in FAMILIES:
        q, p = (family(spread * random(6, family.parameter_size, seed=seed + i)) for i in (0, 1))
        divergence = kl(q, p)
        assert divergence.shape == (6,)
        assert torch.isfinite(divergence).all()
        assert (divergence > -1e-6).all()  # two certain distributions of the same class differ by rounding only
        assert spread > 3 or (divergence > 0).all()
        assert torch.allclose(kl(q, q), torch.zeros(6), atol=1e-5)


def test_gaussian_kl_is_the_closed_form() -> None:
    family = GaussianFamily(3)
    q, p = family(random(5, 6, seed=0)), family(random(5, 6, seed=1))
    ratio = q.variance / p.variance
    closed = 0.5 * (ratio - 1 - ratio.log() + (q.mean - p.mean).square() / p.variance)
    assert torch.allclose(kl(q, p), closed.sum(-1), atol=1e-5)


def test_categorical_kl_is_the_closed_form() -> None:
    family = CategoricalFamily(3, 4)
    q, p = family(random(5, 12, seed=0)), family(random(5, 12, seed=1))
    closed = q.mean * (q.mean.log() - p.mean.log())
    assert torch.allclose(kl(q, p), closed.sum(-1), atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_kl_agrees_with_monte_carlo(family: LatentFamily) -> None:
    parameters = random(family.parameter_size, seed=2)
    q, p = family(parameters), family(random(family.parameter_size, seed=3))
    samples = draw(family, parameters, 20_000)
    ratios = q.log_prob(samples) - p.log_prob(samples)
    assert (ratios.mean() - kl(q, p)).abs() < 4 * ratios.std() / math.sqrt(len(ratios))


def test_unimix_keeps_the_kl_of_opposite_certainties_finite_and_bounded() -> None:
    certain = torch.tensor([200.0, -200.0, -200.0, -200.0])
    mixed, pure = (CategoricalFamily(1, 4, unimix) for unimix in (0.01, 0.0))
    divergence = kl(mixed(certain), mixed(certain.flip(0)))
    assert 0 < float(divergence) <= math.log(4 / 0.01)
    assert float(divergence) == pytest.approx((0.9925 - 0.0025) * math.log(0.9925 / 0.0025), rel=1e-4)
    assert pure(certain).mean.min() == 0  # without unimix a class would get probability 0


@pytest.mark.parametrize("sigma_shape", [(1, 1, 1), (2, 3, 4), (2, 1, 1)])
def test_isotropic_gaussian_log_prob_is_that_of_torch(sigma_shape: tuple[int, ...]) -> None:
    mean, value = random(5, 2, 3, 4, seed=0), random(5, 2, 3, 4, seed=1)
    sigma = 0.5 + random(*sigma_shape, seed=2).abs()
    ours = IsotropicGaussian(mean, sigma, 3)
    theirs = Independent(Normal(mean, sigma.expand_as(mean)), 3)
    assert ours.batch_shape == theirs.batch_shape and ours.event_shape == theirs.event_shape
    assert torch.allclose(ours.log_prob(value), theirs.log_prob(value), rtol=1e-5, atol=1e-4)
    assert torch.equal(ours.mean, theirs.mean) and torch.equal(ours.stddev, theirs.stddev)


def test_isotropic_gaussian_gradients_are_those_of_torch() -> None:
    mean, value = random(5, 6, seed=0), random(5, 6, seed=1)
    for shape in [(1,), (6,)]:
        inputs = (mean.clone().requires_grad_(), torch.full(shape, 0.7).requires_grad_())
        ours = torch.autograd.grad(IsotropicGaussian(*inputs, 1).log_prob(value).sum(), inputs)
        theirs = torch.autograd.grad(Normal(inputs[0], inputs[1]).log_prob(value).sum(), inputs)
        for a, b in zip(ours, theirs, strict=True):
            assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_isotropic_gaussian_gradients_reach_what_is_scored_and_what_is_broadcast() -> None:
    inputs = random(2, 6, seed=0).requires_grad_(), random(5, 2, 6, seed=1).requires_grad_()
    sigma = torch.full((1,), 0.7)
    weights = torch.arange(10.0).view(5, 2)
    ours = torch.autograd.grad((weights * IsotropicGaussian(inputs[0], sigma, 1).log_prob(inputs[1])).sum(), inputs)
    scores = Normal(inputs[0], sigma.expand(2, 6)).log_prob(inputs[1]).sum(-1)
    for a, b in zip(ours, torch.autograd.grad((weights * scores).sum(), inputs), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def test_isotropic_gaussian_samples_have_its_moments_and_can_be_scored() -> None:
    torch.manual_seed(0)
    gaussian = IsotropicGaussian(torch.tensor([[1.0, -2.0]]), torch.tensor([0.5, 2.0]), 1)
    samples = gaussian.sample(torch.Size([20_000]))
    error = gaussian.stddev / math.sqrt(20_000)
    assert ((samples.mean(0) - gaussian.mean).abs() < 4 * error).all()
    assert torch.allclose(samples.std(0), gaussian.stddev, rtol=4 / math.sqrt(2 * 20_000))
    entropy = math.log(0.5) + math.log(2.0) + 1 + math.log(2 * math.pi)
    scores = gaussian.log_prob(samples)
    assert scores.shape == (20_000, 1)
    assert abs(float(scores.mean()) + entropy) < 4 * float(scores.std()) / math.sqrt(20_000)


@given(st.floats(-1e6, 1e6))
def test_symexp_inverts_symlog(value: float) -> None:
    x = torch.tensor(value, dtype=torch.float64)
    assert float(symexp(symlog(x))) == pytest.approx(value, rel=1e-9, abs=1e-12)
    assert float(symlog(-x)) == -float(symlog(x))


def encode(value: float, bins: Tensor) -> Tensor:
    """Return the two-hot encoding of one number, bin by bin."""
    out = torch.zeros(len(bins), dtype=torch.float64)
    bins = bins.double()
    if value <= bins[0] or value >= bins[-1]:
        out[0 if value <= bins[0] else -1] = 1
        return out
    for i in range(len(bins) - 1):
        if bins[i] <= value < bins[i + 1]:
            out[i + 1] = (value - bins[i]) / (bins[i + 1] - bins[i])
            out[i] = 1 - out[i + 1]
    return out


@given(value=st.floats(-1e4, 1e4, width=32), seed=st.integers(0, 99))
@few
def test_two_hot_log_prob_is_the_cross_entropy_of_the_encoding(value: float, seed: int) -> None:
    two_hot = TwoHot(random(255, seed=seed))
    expected = (encode(value, two_hot.bins) * two_hot.logits.log_softmax(-1).double()).sum()
    assert float(two_hot.log_prob(torch.tensor(value))) == pytest.approx(float(expected), abs=1e-4)


@given(value=st.floats(-1e4, 1e4, width=32), bins=st.sampled_from([3, 41, 255]))
@few
def test_the_expectation_of_the_encoding_is_the_number_itself(value: float, bins: int) -> None:
    grid = TwoHot(torch.zeros(bins)).bins
    perfect = TwoHot(encode(value, grid).float().log())
    assert float(perfect.mean) == pytest.approx(value, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("bins", [3, 41, 255])
def test_a_uniform_two_hot_predicts_exactly_zero(bins: int) -> None:
    assert torch.equal(TwoHot(torch.zeros(4, bins)).mean, torch.zeros(4))
    assert torch.equal(TwoHot(torch.full((4, bins), 0.3)).mean, torch.zeros(4))


def test_two_hot_is_symmetric_and_hits_its_own_bins() -> None:
    two_hot = TwoHot(random(5, 255, seed=0))
    mirrored = TwoHot(two_hot.logits.flip(-1))
    value = torch.tensor([0.0, 1.0, -3.3, 100.0, -1e12])
    assert torch.allclose(two_hot.log_prob(value), mirrored.log_prob(-value), atol=1e-5)
    assert torch.allclose(two_hot.mean, -mirrored.mean, rtol=1e-6)
    assert torch.equal(two_hot.bins, -two_hot.bins.flip(0))
    assert two_hot.bins[127] == 0
    for i in (0, 1, 127, 254):
        assert torch.allclose(
            two_hot.log_prob(two_hot.bins[i].expand(5)), two_hot.logits.log_softmax(-1)[:, i], atol=1e-5
        )


def test_two_hot_gradient_moves_the_expectation_to_the_target() -> None:
    logits = torch.zeros(41, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.3)
    for _ in range(150):
        adam.zero_grad()
        (-TwoHot(logits).log_prob(torch.tensor(7.0))).backward()
        adam.step()
    assert float(TwoHot(logits).mean.detach()) == pytest.approx(7.0, rel=0.02)


@pytest.mark.parametrize("bins", [1, 2, 256])
def test_two_hot_needs_a_middle_bin(bins: int) -> None:
    with pytest.raises(ValueError, match=f"bins={bins} must be an odd number"):
        TwoHot(torch.zeros(bins))
