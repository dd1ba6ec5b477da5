"""Importance-weighted bounds and their gradients, for models with known likelihood and posterior."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from worldvae.objectives import dreg, iwae, stl


class DigitPCA:
    """Probabilistic PCA of scikit-learn's digits, k = 10, at its maximum likelihood."""

    def __init__(self, size: int = 10) -> None:
        data = torch.from_numpy(load_digits().data) / 16
        self.mean = data.mean(0)
        values, vectors = torch.linalg.eigh((data - self.mean).mT @ (data - self.mean) / len(data))
        self.noise = values[:-size].mean()
        self.weight = vectors[:, -size:] * (values[-size:] - self.noise).sqrt()
        self.x = data[0]
        marginal = self.weight @ self.weight.mT + self.noise * torch.eye(64, dtype=torch.float64)
        self.log_p = torch.distributions.MultivariateNormal(self.mean, marginal).log_prob(self.x).item()
        precision = self.weight.mT @ self.weight + self.noise * torch.eye(size, dtype=torch.float64)
        self.place = torch.linalg.solve(precision, self.weight.mT @ (self.x - self.mean))
        self.spread = (self.noise / precision.diagonal()).sqrt()  # the posterior is diagonal

    def log_joint(self, z: Tensor) -> Tensor:
        seen = Normal(z @ self.weight.mT + self.mean, self.noise.sqrt()).log_prob(self.x).sum(-1)
        return seen + Normal(0.0, 1.0).log_prob(z).sum(-1)

    def log_weights(self, ratio: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        noise = torch.randn(*shape, len(self.place), dtype=torch.float64, generator=generator)
        q = Independent(Normal(self.place, ratio * self.spread), 1)
        z = self.place + ratio * self.spread * noise
        return self.log_joint(z) - q.log_prob(z)


@pytest.fixture(scope="module")
def digits() -> DigitPCA:
    return DigitPCA()


def test_with_the_exact_posterior_every_weight_is_the_likelihood(digits: DigitPCA, generator: torch.Generator) -> None:
    assert digits.log_p == pytest.approx(33.483842877524786, abs=1e-9)
    weights = digits.log_weights(1.0, (5, 8), generator)
    torch.testing.assert_close(weights, torch.full_like(weights, digits.log_p), rtol=0, atol=1e-9)
    torch.testing.assert_close(iwae(weights, 1), weights[:, 0], rtol=0, atol=1e-9)


# Gap of the bound with k samples if q is 1.5 times too wide, from the reference; k = 1 has a closed form.
LADDER = {2: 1.186, 4: 0.628, 8: 0.330, 16: 0.171, 64: 0.046, 256: 0.016, 1024: 0.008}


def test_the_ladder_of_a_q_that_is_too_wide(digits: DigitPCA, generator: torch.Generator) -> None:
    """The reference comes from one run with an unknown error: the tolerance is one per cent and its last digit."""
    draws = 2**19
    weights = torch.cat([digits.log_weights(1.5, (2**16,), generator) for _ in range(draws // 2**16)])
    analytic = 10 * (math.log(1 / 1.5) + (1.5**2 - 1) / 2)
    assert analytic == pytest.approx(2.1953, abs=1e-4)
    before = math.inf
    for k, reference in {1: analytic, **LADDER}.items():
        gaps = digits.log_p - iwae(weights.view(-1, k), 1)
        error = float(gaps.std()) / math.sqrt(len(gaps))
        assert abs(float(gaps.mean()) - reference) < 4 * error + (0.01 * reference + 0.001 if k > 1 else 0)
        assert float(gaps.mean()) < before
        before = float(gaps.mean())
    assert abs(before) < 0.02


@pytest.mark.parametrize(("ratio", "finite"), [(1.5, True), (0.8, True), (0.6, False)])
def test_the_weights_have_a_variance_only_if_q_is_wide_enough(
    digits: DigitPCA, generator: torch.Generator, ratio: float, finite: bool
) -> None:
    """E w^2 / (E w)^2 = (r^2 / sqrt(2 r^2 - 1))^10 for a ratio r > 1/sqrt 2 of deviations, infinite below.

    In both cases it is a lower bound that rises with k.
    """
    weights = digits.log_weights(ratio, (2**16,), generator)
    assert float((weights - digits.log_p).exp().mean()) == pytest.approx(1.0, abs=0.1 if finite else 0.5)
    if finite:
        expected = (ratio**2 / math.sqrt(2 * ratio**2 - 1)) ** 10
        assert float((2 * (weights - digits.log_p)).exp().mean()) == pytest.approx(expected, rel=0.35)
    bounds = [float(iwae(weights.view(-1, k), 1).mean()) for k in (1, 4, 16, 64)]
    assert bounds == sorted(bounds)
    assert bounds[-1] < digits.log_p
    assert digits.log_p - bounds[0] == pytest.approx(10 * (math.log(1 / ratio) + (ratio**2 - 1) / 2), abs=0.05)


@given(
    weights=st.lists(st.floats(-30, 30), min_size=1, max_size=12),
    shift=st.floats(-5000, 5000),
    dim=st.sampled_from([0, 1, -1]),
)
@settings(max_examples=40, deadline=None)
def test_iwae_is_the_log_of_the_mean_along_any_axis(weights: list[float], shift: float, dim: int) -> None:
    rows = torch.tensor([weights, [w / 2 for w in weights]], dtype=torch.float64)
    found = iwae((rows if dim else rows.mT) + shift, dim)
    torch.testing.assert_close(found, rows.exp().mean(1).log() + shift, rtol=1e-9, atol=1e-9)
    assert bool((found >= rows.mean(1) + shift - 1e-9).all())


class Scalar:
    """x = a z + e in two dimensions of z, with z ~ N(0, 1) and e ~ N(0, 0.5^2); q and a are learned."""

    x = torch.tensor([1.0, -0.6], dtype=torch.float64)

    def __init__(self, exact: bool = False) -> None:
        a = 0.9
        variance = 1 / (1 + a**2 / 0.25)
        place = variance * a * self.x / 0.25
        scale = torch.full((2,), math.sqrt(variance), dtype=torch.float64)
        self.a = torch.tensor(a, dtype=torch.float64, requires_grad=True)
        self.place = (place + (0.0 if exact else 0.2)).requires_grad_()
        self.log_scale = (scale.log() + (0.0 if exact else 0.3)).requires_grad_()

    @property
    def q(self) -> Distribution:
        return Independent(Normal(self.place, self.log_scale.exp()), 1)

    def log_joint(self, z: Tensor) -> Tensor:
        return (Normal(self.a * z, 0.5).log_prob(self.x) + Normal(0.0, 1.0).log_prob(z)).sum(-1)

    def samples(self, k: int, batch: int, generator: torch.Generator) -> tuple[Tensor, list[Tensor]]:
        """Draw z from one copy of q per batch entry, so that one backward pass gives the gradient of each."""
        copies = [p.detach().expand(batch, *p.shape).clone().requires_grad_() for p in (self.place, self.log_scale)]
        noise = torch.randn(k, batch, 2, dtype=torch.float64, generator=generator)
        return copies[0] + copies[1].exp() * noise, copies

    def gradients(self, kind: str, k: int, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the bounds and `[batch, 4]` gradients with respect to q's parameters."""
        z, (place, log_scale) = self.samples(k, batch, generator)
        q = Independent(Normal(place, log_scale.exp()), 1)
        if kind == "iwae":
            bound = iwae(self.log_joint(z) - q.log_prob(z), 0)
        else:
            bound = {"dreg": dreg, "stl": stl}[kind](self.log_joint, q, z)
        found = torch.autograd.grad(bound.sum(), [place, log_scale])
        return bound.detach(), torch.cat(found, dim=1)


@pytest.mark.parametrize(("kind", "k"), [("dreg", 1), ("dreg", 4), ("dreg", 64), ("stl", 1), ("stl", 4)])
def test_the_gradient_of_q_is_unbiased(kind: str, k: int) -> None:
    """Compared with the plain reparameterised gradient of the same bound (with one sample if the bound is the ELBO)."""
    batch = 20_000
    model = Scalar()
    plain = model.gradients("iwae", k if kind == "dreg" else 1, batch, torch.Generator().manual_seed(1))[1]
    found = model.gradients(kind, k, batch, torch.Generator().manual_seed(2))[1]
    error = ((plain.var(0) + found.var(0)) / batch).sqrt()
    assert bool(((plain.mean(0) - found.mean(0)).abs() < 4 * error).all())
    assert bool((found.mean(0).abs() > 4 * (found.var(0) / batch).sqrt()).any())  # the gradients are not zero


def test_with_many_samples_dreg_is_clearer() -> None:
    model = Scalar()
    ratios = []
    for k in (4, 64):
        plain = model.gradients("iwae", k, 4000, torch.Generator().manual_seed(1))[1]
        found = model.gradients("dreg", k, 4000, torch.Generator().manual_seed(1))[1]
        assert bool((found.var(0) < plain.var(0)).all())
        ratios.append(found.var(0) / plain.var(0))
    assert bool((ratios[1] < ratios[0]).all())


def test_both_have_the_value_of_the_bound() -> None:
    model = Scalar()
    bounds = [model.gradients(kind, 8, 50, torch.Generator().manual_seed(3))[0] for kind in ("iwae", "dreg")]
    torch.testing.assert_close(*bounds, rtol=0, atol=1e-12)
    z, _ = model.samples(8, 50, torch.Generator().manual_seed(3))
    elbo = (model.log_joint(z) - model.q.log_prob(z)).mean(0)
    torch.testing.assert_close(model.gradients("stl", 8, 50, torch.Generator().manual_seed(3))[0], elbo)


def test_at_the_exact_posterior_no_sample_has_a_gradient(generator: torch.Generator) -> None:
    model = Scalar(exact=True)
    for kind in ("stl", "dreg"):
        found = model.gradients(kind, 4, 100, generator)[1]
        assert float(found.abs().max()) < 1e-12
    assert float(model.gradients("iwae", 4, 100, generator)[1].abs().max()) > 1e-2  # the score, with mean zero


def test_the_model_gets_the_gradient_of_the_bound() -> None:
    """The second factor of DReG applies to q alone."""
    model = Scalar()
    z, (place, log_scale) = model.samples(16, 30, torch.Generator().manual_seed(0))
    q = Independent(Normal(place, log_scale.exp()), 1)
    plain = torch.autograd.grad(iwae(model.log_joint(z) - q.log_prob(z), 0).sum(), model.a, retain_graph=True)
    found = torch.autograd.grad(dreg(model.log_joint, q, z).sum(), model.a, retain_graph=True)
    torch.testing.assert_close(found, plain, rtol=1e-12, atol=1e-12)
    elbo = torch.autograd.grad((model.log_joint(z) - q.log_prob(z)).mean(0).sum(), model.a, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(stl(model.log_joint, q, z).sum(), model.a), elbo)


def test_other_uses_of_the_samples_keep_their_gradient(generator: torch.Generator) -> None:
    model = Scalar()
    z, (place, _) = model.samples(4, 3, generator)
    alone = torch.autograd.grad(z.sum(), place, retain_graph=True)[0]
    q = Independent(Normal(place, 1.0), 1)
    bound = dreg(model.log_joint, q, z).sum()
    only = torch.autograd.grad(bound, place, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(bound + z.sum(), place)[0], only + alone)
    constant = dreg(model.log_joint, Independent(Normal(place.detach(), 1.0), 1), z.detach())
    assert torch.equal(constant.sum(), bound)
