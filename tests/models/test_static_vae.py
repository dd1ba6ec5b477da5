"""The static VAE compared with probabilistic PCA, where everything has a closed form."""

import math
from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal
from torch.nn import functional as F

import worldvae
from worldvae.distributions import FullGaussianFamily, GaussianFamily, kl
from worldvae.errors import Diverged
from worldvae.likelihoods import DiscretisedLogisticLikelihood, GaussianLikelihood
from worldvae.models.static_vae import VAE
from worldvae.posteriors import AmortisedPosterior, FlowPosterior, Posterior, ResidualPosterior
from worldvae.priors import FlowMatchingPrior, HierarchicalPrior, ParametricPrior, StandardPrior, VampPrior

MAXIMA = {
    2: 0.0057,
    5: 8.9076,
    10: 17.4519,
    16: 23.9294,
    20: 27.2773,
    32: 35.2470,
}  # Tipping & Bishop 1999, load_digits


@dataclass(frozen=True)
class PCA:
    """Probabilistic PCA at its maximum likelihood, with log p(x) and p(z | x) in closed form."""

    mean: Tensor
    weight: Tensor
    variance: Tensor
    maximum: float

    @staticmethod
    def fit(x: Tensor, k: int) -> "PCA":
        n, d = x.shape
        values, vectors = torch.linalg.eigh((x - x.mean(0)).T @ (x - x.mean(0)) / n)
        values, vectors = values.flip(0), vectors.flip(1)
        s2 = values[k:].mean()
        maximum = -0.5 * (d * math.log(2 * math.pi) + values[:k].log().sum() + (d - k) * s2.log() + d)
        return PCA(x.mean(0), vectors[:, :k] * (values[:k] - s2).sqrt(), s2, float(maximum))

    def log_prob(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + self.variance * torch.eye(len(self.mean), dtype=x.dtype)
        return MultivariateNormal(self.mean, covariance).log_prob(x)

    @property
    def encoder(self) -> Tensor:
        return torch.linalg.solve(self._m, self.weight.T)

    @property
    def _m(self) -> Tensor:
        return self.weight.T @ self.weight + self.variance * torch.eye(self.weight.shape[1], dtype=self.weight.dtype)

    @property
    def covariance(self) -> Tensor:
        return self.variance * torch.linalg.inv(self._m)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        return MultivariateNormal((x - self.mean) @ self.encoder.T, self.covariance)

    def vae(self, shift: float = 0.0, widen: float = 1.0) -> VAE:
        """Return the VAE that equals this model, with the exact posterior, unless `shift` or `widen` change it."""
        d, k = self.weight.shape
        vae = VAE.dense((d,), k, layers=0, family=GaussianFamily(k, min_std=0.0)).double()
        std = widen * self.covariance.diagonal().sqrt()
        raw = 2 * (torch.logit(std / 2) + 2.2)
        with torch.no_grad():
            vae.posterior.net.project.weight.copy_(torch.cat([self.encoder, torch.zeros(k, d)]))
            mean = -self.encoder @ self.mean
            mean[0] += shift
            vae.posterior.net.project.bias.copy_(torch.cat([mean, raw]))
            vae.likelihood.trunk[0][0].weight.copy_(self.weight)
            vae.likelihood.trunk[0][0].bias.copy_(self.mean)
            vae.likelihood.log_sigma.copy_((self.variance.sqrt() - vae.likelihood.floor).log())
        return vae

    @staticmethod
    def of(vae: VAE) -> "PCA":
        """Return the model that a linear VAE has learned."""
        linear, sigma = vae.likelihood.trunk[0][0], vae.likelihood.sigma.detach().double()
        return PCA(linear.bias.detach().double(), linear.weight.detach().double(), sigma.square(), math.nan)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return torch.tensor(load_digits().data / 16, dtype=torch.float64)


def sigma_points(k: int, examples: int) -> Tensor:
    """Return noise over which the mean of any quadratic function is its expectation: an ELBO without Monte Carlo."""
    points = math.sqrt(k) * torch.eye(k, dtype=torch.float64)
    return torch.cat([points, -points]).unsqueeze(1).expand(2 * k, examples, k)


@pytest.mark.parametrize("k", MAXIMA)
def test_the_maxima_of_probabilistic_pca(digits: Tensor, k: int) -> None:
    pca = PCA.fit(digits, k)
    assert pca.maximum == pytest.approx(MAXIMA[k], abs=5e-5)
    assert float(pca.log_prob(digits).mean()) == pytest.approx(pca.maximum, abs=1e-9)
    bound = pca.vae().bound(digits, 1, torch.Generator().manual_seed(0))  # q is exact: one sample suffices
    assert float(bound.nats.mean().detach()) == pytest.approx(pca.maximum, abs=1e-9)


def test_log_p_is_the_elbo_plus_the_kl_to_the_posterior(digits: Tensor) -> None:
    pca, zero = PCA.fit(digits, 10), digits[:1]
    exact = float(pca.log_prob(zero))
    assert exact == pytest.approx(33.483842877524786, abs=1e-9)
    assert float(pca.vae().log_weights(zero, sigma_points(10, 1)).mean().detach()) == pytest.approx(exact, abs=1e-9)
    shifted = pca.vae(shift=0.3)
    elbo = float(shifted.log_weights(zero, sigma_points(10, 1)).mean().detach())
    divergence = float(kl(shifted.encode(zero), pca.posterior(zero)).detach())
    assert divergence == pytest.approx(1.38227053430004, abs=1e-9)
    assert exact - elbo == pytest.approx(divergence, abs=1e-9)


def test_the_bound_tightens_with_its_samples(digits: Tensor, generator: torch.Generator) -> None:
    pca = PCA.fit(digits, 10)
    vae, exact = pca.vae(widen=1.5), pca.log_prob(digits)
    gaps = {}
    for k in (1, 2, 8, 64):
        bound = vae.bound(digits, k, generator)
        assert bound.kind == "lower_bound"
        assert bound.nats.shape == (len(digits),)
        gap = (exact - bound.nats).detach()
        gaps[k] = float(gap.mean()), 4 * float(gap.std()) / math.sqrt(len(digits))
    for k, expected in {1: 10 * (math.log(1 / 1.5) + (1.5**2 - 1) / 2), 2: 1.186, 8: 0.330, 64: 0.046}.items():
        assert gaps[k][0] == pytest.approx(expected, abs=gaps[k][1] + 0.002)


@pytest.mark.gate
def test_a_trained_linear_vae_finds_the_maximum(digits: Tensor, generator: torch.Generator) -> None:
    x = digits.float()
    vae = VAE.dense((64,), 10, layers=0, family=GaussianFamily(10, min_std=0.0))
    history = vae.fit(x, updates=3000, batch=len(x), learning_rate=5e-2, generator=generator)
    with torch.no_grad():
        elbo = torch.stack([vae.bound(x, 1, generator).nats.mean() for _ in range(10)]).mean()
    assert 17.4519 - 0.05 < float(elbo) < 17.4519 + 0.01
    assert float(PCA.of(vae).log_prob(digits).mean()) == pytest.approx(17.4519, abs=0.05)
    assert float(history.bound[-100:].mean()) == pytest.approx(float(elbo), abs=0.1)
    assert history.bound.shape == history.kl.shape == (3000,)


class Turned(Posterior):
    """A posterior whose latents are rotated by an orthogonal matrix."""

    def __init__(self, inner: Posterior, matrix: Tensor) -> None:
        super().__init__(inner.latent_size)
        self.inner, self.matrix = inner, matrix

    def project(self, embedding: Tensor) -> Tensor:
        return self.inner.project(embedding)

    def infer(self, memory: Tensor, projected: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        latent, parameters = self.inner.infer(memory, projected, noise)
        return latent @ self.matrix.T, parameters

    def sample_and_log_prob(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        latent, log_prob = self.inner.sample_and_log_prob(parameters, noise)
        return latent @ self.matrix.T, log_prob

    def distribution(self, parameters: Tensor) -> Distribution:
        raise NotImplementedError


@pytest.mark.parametrize("layers", [0, 2])
def test_a_rotation_of_the_latents_changes_nothing(digits: Tensor, layers: int) -> None:
    vae = VAE.dense((64,), 5, 32, layers).double()
    matrix = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    back = nn.Linear(5, 5, bias=False, dtype=torch.float64)
    back.weight.data = matrix.T.contiguous()
    likelihood = VAE.dense((64,), 5, 32, layers).double().likelihood
    likelihood.load_state_dict(vae.likelihood.state_dict())
    likelihood.trunk = nn.Sequential(back, likelihood.trunk)
    turned = VAE(vae.encoder, Turned(vae.posterior, matrix), StandardPrior(5), likelihood)
    ours, theirs = (model.bound(digits[:20], 16, torch.Generator().manual_seed(0)).nats for model in (vae, turned))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-10)
    if layers == 0:
        weight, sigma = vae.likelihood.trunk[0][0].weight, vae.likelihood.sigma
        turned_weight = weight @ matrix.T
        for w in (weight, turned_weight):
            pca = PCA(vae.likelihood.trunk[0][0].bias, w, sigma.square(), math.nan)
            assert torch.allclose(pca.log_prob(digits[:20]), PCA.of(vae).log_prob(digits[:20]), rtol=0, atol=1e-10)


@pytest.mark.gate
def test_a_learned_gaussian_prior_gains_nothing(digits: Tensor) -> None:
    digits, bounds = digits[::4, 16:32], []
    x = digits.float()
    for learned in (False, True):
        torch.manual_seed(0)
        prior = ParametricPrior(0, GaussianFamily(2, min_std=0.0), 8) if learned else None
        vae = VAE.dense((16,), 2, layers=0, family=GaussianFamily(2, min_std=0.0), prior=prior)
        generator = torch.Generator().manual_seed(0)
        vae.fit(x, updates=800, batch=len(x), learning_rate=5e-2, generator=generator)
        with torch.no_grad():
            bounds.append(float(vae.bound(x, 16, generator).nats.mean()))
    assert bounds[0] == pytest.approx(PCA.fit(digits, 2).maximum, abs=0.05)
    assert bounds[1] == pytest.approx(bounds[0], abs=0.05)
    assert bounds[1] < PCA.fit(digits, 2).maximum + 0.01


def active_units(vae: VAE, x: Tensor) -> int:
    """Count dimensions with Var_x(E_q[z_d]) > 0.01 (Burda et al. 2016, section 5.2)."""
    return int((vae.encode(x).mean.var(0) > 0.01).sum())


@pytest.mark.gate
def test_pure_noise_has_no_active_units_and_structure_has(generator: torch.Generator) -> None:
    noise = torch.randn(4000, 8, generator=generator)
    held_out = torch.randn(1000, 8, generator=generator)
    structure = noise[:, :1] * torch.ones(8) + 0.2 * torch.randn(4000, 8, generator=generator)
    counts = []
    for data, test in ((noise, held_out), (structure, structure)):
        vae = VAE.dense((8,), 3, 32, 1)
        vae.fit(data, updates=700, batch=256, learning_rate=1e-2, generator=generator)
        with torch.no_grad():
            counts.append(active_units(vae, test))
    assert counts[0] == 0 and counts[1] >= 1


@pytest.fixture(scope="module")
def trained(digits: Tensor) -> VAE:
    torch.manual_seed(0)
    vae = VAE.dense((8, 8), 3, 32, 2)
    vae.fit(digits.float().view(-1, 8, 8), epochs=20, generator=torch.Generator().manual_seed(0))
    return vae


def test_training_lifts_the_bound_and_its_parts_fit_together(trained: VAE, digits: Tensor) -> None:
    x = digits.float().view(-1, 8, 8)[:200]
    before = VAE.dense((8, 8), 3, 32, 2).bound(x, 1, torch.Generator().manual_seed(0)).nats.mean()
    after = trained.bound(x, 1, torch.Generator().manual_seed(0)).nats.mean()
    assert after > before + 20
    error = (trained.reconstruct(x) - x).square().mean()
    assert error < 0.8 * (x.mean(0) - x).square().mean()
    samples = trained.sample(50, torch.Generator().manual_seed(1))
    assert samples.shape == (50, 8, 8)
    assert torch.equal(samples, trained.sample(50, torch.Generator().manual_seed(1)))
    assert not torch.equal(samples, trained.sample(50, torch.Generator().manual_seed(2)))
    assert "AmortisedPosterior" in repr(trained) and "StandardPrior" in repr(trained)


@pytest.mark.parametrize("how", ["lerp", "slerp", "geodesic"])
def test_an_interpolation_ends_at_its_ends(trained: VAE, digits: Tensor, how: str) -> None:
    x = digits.float().view(-1, 8, 8)
    frames = trained.interpolate(x[:3], x[3:6], 6, how)
    assert frames.shape == (6, 3, 8, 8)
    assert torch.allclose(frames[0], trained.reconstruct(x[:3]), atol=1e-6)
    assert torch.allclose(frames[-1], trained.reconstruct(x[3:6]), atol=1e-6)


def test_an_interpolation_needs_two_ends_each(trained: VAE, digits: Tensor) -> None:
    x = digits.float().view(-1, 8, 8)
    with pytest.raises(ValueError, match="3 examples a and 2 examples b"):
        trained.interpolate(x[:3], x[3:5])


def test_a_traversal_changes_one_number_only(trained: VAE, digits: Tensor) -> None:
    x = digits.float().view(-1, 8, 8)[:2]
    mode = trained.encode(x).mean.detach()
    frames = trained.traverse(x, 1, torch.tensor([-2.0, float(mode[0, 1]), 2.0]))
    assert frames.shape == (3, 2, 8, 8)
    assert torch.allclose(frames[1, 0], trained.reconstruct(x)[0], atol=1e-6)
    moved = mode.clone()
    moved[:, 1] = 2.0
    assert torch.allclose(frames[2], trained.decode(moved).mean, atol=1e-6)


def test_parts_that_belong_to_others_are_refused() -> None:
    vae, other = VAE.dense((8,), 2, 8, 1), VAE.dense((8,), 2, 8, 1)
    with pytest.raises(ValueError, match="VampPrior was built with another posterior"):
        VAE(vae.encoder, vae.posterior, VampPrior(other.posterior, 0, 8, 8, 4), vae.likelihood)
    posterior = ResidualPosterior(HierarchicalPrior(0, 2, 8, 2), 0, 8, 8)
    with pytest.raises(ValueError, match="ResidualPosterior was built with another prior"):
        VAE(vae.encoder, posterior, HierarchicalPrior(0, 2, 8, 2), vae.likelihood)
    with pytest.raises(ValueError, match="latent=4, but the family has latents of length 3"):
        VAE.dense((8,), 4, 8, 1, family=FullGaussianFamily(3))


def test_the_same_seed_trains_the_same_weights(digits: Tensor) -> None:
    def train(seed: int) -> list[Tensor]:
        torch.manual_seed(0)
        vae = VAE.dense((64,), 2, 8, 1)
        vae.fit(digits.float(), updates=5, batch=50, generator=torch.Generator().manual_seed(seed))
        return list(vae.parameters())

    first, second, other = train(0), train(0), train(1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("kind", ["full", "flow", "logistic", "hierarchical"])
def test_other_parts_train_too(digits: Tensor, kind: str, generator: torch.Generator) -> None:
    x = digits.float()[:256]
    vae = VAE.dense((64,), 3, 16, 1, family=FullGaussianFamily(3) if kind == "full" else None)
    if kind == "flow":
        vae = VAE(vae.encoder, FlowPosterior(0, 16, 3, 16), vae.prior, vae.likelihood)
    if kind == "hierarchical":
        prior = HierarchicalPrior(0, 3, 16, 3)
        vae = VAE(vae.encoder, ResidualPosterior(prior, 0, 16, 16), prior, vae.likelihood)
    if kind == "logistic":
        x = torch.round(x * 255) / 255
        vae = VAE.dense((64,), 3, 16, 1, likelihood=DiscretisedLogisticLikelihood, outputs=2)
    history = vae.fit(x, updates=150, batch=128, learning_rate=5e-3, generator=generator)
    assert history.bound[-10:].mean() > history.bound[:10].mean() + 5
    gap = vae.bound(x, 32, generator).nats.mean() - vae.bound(x, 1, generator).nats.mean()
    assert gap > 0
    if kind == "logistic":
        assert bool((vae.bound(x, 1, generator).nats < 0).all())  # probabilities, not densities


def test_a_noisy_lower_bound_of_the_prior_makes_an_elbo_but_no_importance_weighted_bound(digits: Tensor) -> None:
    vae = VAE.dense((64,), 2, 8, 1, prior=FlowMatchingPrior(0, 2, 8))
    x, generator = digits.float()[:3], torch.Generator().manual_seed(0)
    assert vae.bound(x, 1, generator).kind == "lower_bound"
    assert vae.bound(x, 2, generator).kind == "estimate"


def test_a_watch_sees_every_update(digits: Tensor, generator: torch.Generator) -> None:
    vae, seen = VAE.dense((64,), 2, 8, 1), []
    history = vae.fit(digits.float()[:100], epochs=2, batch=40, generator=generator, watch=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6] and history.bound.shape == (6,)


def test_mistakes_are_named(digits: Tensor, generator: torch.Generator) -> None:
    vae, x = VAE.dense((64,), 2, 8, 1), digits.float()
    for arguments in ({}, {"epochs": 1, "updates": 1}, {"updates": 0}):
        with pytest.raises(ValueError, match="epochs"):
            vae.fit(x, generator=generator, **arguments)
    with pytest.raises(ValueError, match="length 2, its prior of length 3"):
        VAE(vae.encoder, vae.posterior, StandardPrior(3), vae.likelihood)
    with pytest.raises(ValueError, match="dim=2"):
        vae.traverse(x[:1], 2, torch.zeros(1))


def test_it_is_offered_lazily_and_takes_any_parts(digits: Tensor) -> None:
    assert worldvae.VAE is VAE
    posterior = AmortisedPosterior(0, 64, GaussianFamily(2), 8)
    vae = VAE(nn.Identity(), posterior, StandardPrior(2), GaussianLikelihood(nn.Linear(2, 64), (64,), sigma=0.3))
    x = digits.float()[:5]
    latent, noise = vae.encode(x).mean, torch.zeros(1, 5, 2)
    reference = -F.mse_loss(vae.decode(latent).mean, x, reduction="none").sum(-1) / (2 * 0.3**2)
    reference = (
        reference - 32 * math.log(2 * math.pi * 0.3**2) - (latent.square() / 2 + 0.5 * math.log(2 * math.pi)).sum(-1)
    )
    assert torch.allclose(vae.log_joint(x, latent), reference, rtol=1e-5)
    expected = reference - vae.encode(x).log_prob(latent)
    assert torch.allclose(vae.log_weights(x, noise)[0], expected, rtol=1e-5)


def test_data_that_are_not_finite_spoil_no_weight(generator: torch.Generator) -> None:
    vae = VAE.dense((4,), latent=2)
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    with pytest.raises(Diverged, match="not finite, and the weights were left as they are"):
        vae.fit(torch.full((8, 4), torch.nan), epochs=1, generator=generator)
    assert all(torch.equal(tensor, before[name]) for name, tensor in vae.state_dict().items())
