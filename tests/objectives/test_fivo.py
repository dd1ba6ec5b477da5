"""The particle filter's bound in linear-Gaussian worlds, compared with the Kalman filter's likelihood."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae import exact
from worldvae.exact import MILD, STIFF, WORLDS, AffineChain, LinearGaussian
from worldvae.objectives import Filtering, fivo, iwae, systematic


def log_normal(error: Tensor, whiten: Tensor) -> Tensor:
    """Return log N(error; 0, S), where `whiten` is the inverse of S's Cholesky root."""
    white = error @ whiten.mT
    return -white.square().sum(-1) / 2 + whiten.diagonal().log().sum() - error.shape[-1] / 2 * math.log(2 * math.pi)


def whitener(covariance: Tensor) -> Tensor:
    return torch.linalg.inv(torch.linalg.cholesky(covariance))


@dataclass
class Filter:
    """A world, its data, and a chain as the proposal, in the form that `fivo` expects."""

    world: LinearGaussian
    q: AffineChain
    x: Tensor
    u: Tensor

    def __post_init__(self) -> None:
        self.drift = self.world.drift(self.u)
        self.roots = torch.linalg.cholesky(self.q.S)
        self.whiten_q = torch.linalg.inv(self.roots)
        self.whiten_z = [whitener(self.world.step_covariance(t)) for t in range(self.x.shape[1])]
        self.whiten_x = whitener(self.world.R)

    def proposal(self, t: int, z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        error = torch.randn(z.shape, dtype=z.dtype, generator=generator) @ self.roots[t].mT
        return z @ self.q.F[t].mT + self.q.b[:, t, None] + error, log_normal(error, self.whiten_q[t])

    def transition(self, t: int, z: Tensor, following: Tensor) -> Tensor:
        return log_normal(following - z @ self.world.A.mT - self.drift[:, t, None], self.whiten_z[t])

    def emission(self, t: int, z: Tensor) -> Tensor:
        return log_normal(self.x[:, t, None] - z @ self.world.C.mT, self.whiten_x)

    def run(self, particles: int, generator: torch.Generator, threshold: float = 0.5) -> Filtering:
        start = torch.zeros(len(self.x), particles, len(self.world.m0), dtype=torch.float64)
        length = self.x.shape[1]
        return fivo(self.proposal, self.transition, self.emission, start, length, generator, threshold)


def optimal(world: LinearGaussian, x: Tensor, u: Tensor) -> Filter:
    return Filter(world, exact.locally_optimal_chain(world, x, u), x, u)


# Gaps of the reference: one run over the 32 episodes, with an unknown scheme of resampling.
TABLE = [
    ("stiff", 16, 32, 17.2),
    ("stiff", 64, 32, 3.1),
    ("stiff", 256, 8, 0.40),
    ("stiff", 1024, 3, 0.11),
    ("mild", 16, 32, 2.88),
    ("mild", 64, 32, 0.78),
    ("mild", 256, 8, 0.165),
    ("mild", 1024, 3, 0.041),
]


@pytest.mark.parametrize(("name", "particles", "runs", "reference"), TABLE)
def test_the_published_gaps(name: str, particles: int, runs: int, reference: float, generator: torch.Generator) -> None:
    world = WORLDS[name]
    x, u = exact.reference_episodes(world)
    likelihood = exact.log_likelihood(world, x, u)
    found = optimal(world, x.repeat(runs, 1, 1), u.repeat(runs, 1, 1)).run(particles, generator)
    assert found.kind == "lower_bound"
    assert found.increments.shape == found.effective.shape == (32 * runs, 50)
    assert bool((found.effective >= 1 - 1e-9).all() and (found.effective <= particles + 1e-6).all())
    gaps = likelihood - found.bound.view(runs, 32)
    # Standard errors of the mean over 32 episodes: of one run, like the reference's, and of all runs here.
    single = float(gaps.var(0).sum().sqrt()) / 32
    error = single / math.sqrt(runs)
    assert abs(float(gaps.mean()) - reference) < 4 * math.hypot(single, error)
    assert float(gaps.mean()) > -4 * error  # a lower bound on average


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.1])
def test_the_estimate_of_the_likelihood_is_unbiased(threshold: float, generator: torch.Generator) -> None:
    """E Z = p(x), however often particles are resampled; and each further row is one more factor."""
    x, u = (rows[:, :8] for rows in exact.reference_episodes(MILD, [0]))
    likelihood = exact.kalman_filter(MILD, x, u).log_likelihood.cumsum(1)
    found = optimal(MILD, x.expand(4000, -1, -1), u.expand(4000, -1, -1)).run(32, generator, threshold)
    ratios = (found.increments.cumsum(1) - likelihood).exp()
    error = ratios.std(0) / math.sqrt(len(ratios))
    assert bool(((ratios.mean(0) - 1).abs() < 4 * error).all())
    assert float(error.max()) < 0.02


def test_with_the_exact_posterior_as_proposal_one_particle_is_enough(generator: torch.Generator) -> None:
    """The weights of a row still vary, but their product does not."""
    x, u = exact.reference_episodes(STIFF)
    found = Filter(STIFF, exact.smoothing_chain(STIFF, x, u), x, u).run(3, generator, 0.0)
    torch.testing.assert_close(found.bound, exact.log_likelihood(STIFF, x, u), rtol=0, atol=1e-8)


def test_one_particle_is_the_evidence_lower_bound(generator: torch.Generator) -> None:
    x, u = exact.reference_episodes(MILD, [1])
    q = exact.locally_optimal_chain(MILD, x, u)
    found = Filter(MILD, q, x.expand(4000, -1, -1), u.expand(4000, -1, -1)).run(1, generator)
    error = found.increments.std(0) / math.sqrt(4000)
    terms = exact.bound(MILD, q, x, u)[0]
    assert bool(((found.increments.mean(0) - terms).abs() < 4.5 * error + 1e-9).all())  # the largest of fifty


def test_without_resampling_it_is_iwae() -> None:
    x, u = (rows[:, :6] for rows in exact.reference_episodes(MILD, range(3)))
    filter = optimal(MILD, x, u)
    found = filter.run(16, torch.Generator().manual_seed(0), threshold=0.0)
    generator, z, total = torch.Generator().manual_seed(0), torch.zeros(3, 16, 2, dtype=torch.float64), 0.0
    for t in range(6):
        following, log_q = filter.proposal(t, z, generator)
        total = total + filter.emission(t, following) + filter.transition(t, z, following) - log_q
        z = following
    assert isinstance(total, Tensor)
    torch.testing.assert_close(found.bound, iwae(total, 1), rtol=1e-10, atol=1e-10)


def test_the_same_seed_gives_the_same_bits() -> None:
    x, u = exact.reference_episodes(MILD, range(3))
    bounds = [optimal(MILD, x, u).run(16, torch.Generator().manual_seed(seed)).bound for seed in (0, 0, 1)]
    assert torch.equal(bounds[0], bounds[1])
    assert not torch.equal(bounds[0], bounds[2])


def test_the_gradient_with_one_particle_is_that_of_the_closed_form(generator: torch.Generator) -> None:
    """Through samples and weights, with respect to the gain of the proposal and to the dynamics of the model."""
    x, u = (rows[:, :20] for rows in exact.reference_episodes(MILD, [0]))
    covariance = exact.locally_optimal_chain(MILD, x, u).S
    runs = 3000
    # One copy of the learned parameters per run, so that one backward pass gives the gradients of all runs.
    gain, pull = (torch.tensor([[0.1], [0.2]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    gain.requires_grad_(), pull.requires_grad_()
    q = exact.filtering_chain(MILD, x, u, gain.expand(20, 2, 1), covariance)
    closed = exact.bound(replace(MILD, A=MILD.A + torch.diag(pull)), q, x, u).sum()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(closed, [gain, pull])])

    gains = gain.detach().expand(runs, 2, 1).clone().requires_grad_()
    pulls = pull.detach().expand(runs, 1, 2).clone().requires_grad_()
    keep = torch.eye(2, dtype=torch.float64) - gains @ MILD.C
    known = optimal(MILD, x, u)

    def proposal(t: int, z: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        error = torch.randn(z.shape, dtype=z.dtype, generator=generator) @ known.roots[t].mT
        predicted = z @ MILD.A.mT * (t > 0) + known.drift[:, t, None]
        return predicted @ keep.mT + (gains @ x[:, t, :, None]).mT + error, log_normal(error, known.whiten_q[t])

    def transition(t: int, z: Tensor, following: Tensor) -> Tensor:
        error = following - z @ MILD.A.mT - pulls * z - known.drift[:, t, None]
        return log_normal(error, known.whiten_z[t])

    found = fivo(proposal, transition, known.emission, torch.zeros(runs, 1, 2, dtype=torch.float64), 20, generator)
    parts = torch.autograd.grad(found.bound.sum(), [gains, pulls])
    draws = torch.cat([part.flatten(1) for part in parts], dim=1)
    assert bool(((draws.mean(0) - expected).abs() < 4 * draws.std(0) / math.sqrt(runs)).all())
    assert bool((expected.abs() > 4 * draws.std(0) / math.sqrt(runs)).any())


def test_gradients_pass_where_particles_were_drawn_anew(generator: torch.Generator) -> None:
    """Steps along them raise the bound of a filter that initially ignores its observations."""
    x, u = exact.reference_episodes(MILD, range(8))
    covariance = exact.locally_optimal_chain(MILD, x, u).S
    gain = torch.zeros(2, 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([gain], lr=0.1)
    bounds = []
    for _ in range(10):
        q = exact.filtering_chain(MILD, x, u, gain.expand(50, 2, 1), covariance)
        found = Filter(MILD, q, x, u).run(8, generator)
        assert bool((found.effective < 4).any())
        optimiser.zero_grad()
        (-found.bound.mean()).backward()
        optimiser.step()
        bounds.append(found.bound.mean().item())
    assert min(bounds[-3:]) > max(bounds[:3])


@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), sharp=st.floats(0.0, 20.0))
@settings(max_examples=40, deadline=None)
def test_resampling_is_proportional_and_keeps_within_one(seed: int, size: int, sharp: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.softmax(sharp * torch.randn(3, size, dtype=torch.float64, generator=generator), 1)
    chosen = systematic(weights, generator)
    assert bool(((chosen >= 0) & (chosen < size)).all())
    counts = torch.stack([torch.bincount(row, minlength=size) for row in chosen])
    assert float((counts - size * weights).abs().max()) < 1 + 1e-6


def test_resampling_is_unbiased_and_never_takes_the_impossible(generator: torch.Generator) -> None:
    weights = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2, 0.0], dtype=torch.float64)
    chosen = systematic(weights.expand(4000, 6), generator)
    shares = torch.nn.functional.one_hot(chosen, 6).double().mean(1)
    assert bool((shares[:, weights == 0] == 0).all())
    assert bool(((shares.mean(0) - weights).abs() <= 4 * shares.std(0) / math.sqrt(4000)).all())
