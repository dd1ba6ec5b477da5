"""Exact likelihoods and posteriors of linear-Gaussian worlds, compared with dense Gaussians and published numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal

from worldvae import exact
from worldvae.exact import MILD, STIFF, WORLDS, LinearGaussian

LENGTH = 50


def random_world(seed: int) -> LinearGaussian:
    """Three states, two actions, two observations, and nothing diagonal."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def covariance(n: int) -> Tensor:
        root = draw(n, n)
        return root @ root.mT + 0.1 * torch.eye(n, dtype=torch.float64)

    return LinearGaussian(
        0.5 * draw(3, 3), draw(3, 2), draw(2, 3), covariance(3), covariance(2), covariance(3), draw(3)
    )


def dense(world: LinearGaussian, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and covariance of all z of one episode (flattened), and the matrix that maps them to x."""
    length, n = len(actions), len(world.m0)
    # z = G (drift + noise): G holds the powers of A below the diagonal.
    powers = [torch.eye(n, dtype=torch.float64)]
    for _ in range(length):
        powers.append(world.A @ powers[-1])
    zero = torch.zeros(n, n, dtype=torch.float64)
    blocks = [[powers[i - j] if j <= i else zero for j in range(length)] for i in range(length)]
    spread = torch.cat([torch.cat(row, dim=1) for row in blocks])
    noise = torch.block_diag(world.P0, *[world.Q] * (length - 1))
    drift = torch.cat([world.m0, (actions[:-1] @ world.B.mT).flatten()])
    return spread @ drift, spread @ noise @ spread.mT, torch.block_diag(*[world.C] * length)


def episode(name: str, seed: int) -> tuple[LinearGaussian, Tensor, Tensor]:
    if name != "random":
        return WORLDS[name], *exact.reference_episodes(WORLDS[name], [seed])
    generator = torch.Generator().manual_seed(seed)
    observations = 2 * torch.randn(1, 12, 2, dtype=torch.float64, generator=generator)
    return random_world(seed), observations, torch.randn(1, 12, 2, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("name", ["stiff", "mild", "random"])
@pytest.mark.parametrize("seed", [0, 1])
def test_filter_and_smoother_are_the_dense_gaussian(name: str, seed: int) -> None:
    world, x, u = episode(name, seed)
    mean, covariance, see = dense(world, u[0])
    length, n = x.shape[1], len(world.m0)
    noise = torch.block_diag(*[world.R] * length)
    joint = MultivariateNormal(see @ mean, see @ covariance @ see.mT + noise)
    assert exact.log_likelihood(world, x, u).item() == pytest.approx(joint.log_prob(x[0].flatten()).item(), abs=1e-10)

    def given(rows: int) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of all z given the first rows of x."""
        seen = see[: rows * x.shape[2]]
        total = seen @ covariance @ seen.mT + noise[: len(seen), : len(seen)]
        gain = torch.linalg.solve(total, seen @ covariance).mT
        return mean + gain @ (x[0, :rows].flatten() - seen @ mean), covariance - gain @ seen @ covariance

    smoothed, filtered = exact.kalman_smoother(world, x, u), exact.kalman_filter(world, x, u)
    all_mean, all_covariance = given(length)
    for t in range(length):
        at = slice(t * n, (t + 1) * n)
        torch.testing.assert_close(smoothed.mean[0, t], all_mean[at], rtol=0, atol=1e-9)
        torch.testing.assert_close(smoothed.covariance[t], all_covariance[at, at], rtol=0, atol=1e-9)
    for t in (0, 3, length - 2):
        at, next = slice(t * n, (t + 1) * n), slice((t + 1) * n, (t + 2) * n)
        known, spread = given(t + 1)
        torch.testing.assert_close(filtered.mean[0, t], known[at], rtol=0, atol=1e-9)
        torch.testing.assert_close(filtered.covariance[t], spread[at, at], rtol=0, atol=1e-9)
        torch.testing.assert_close(filtered.predicted_mean[0, t + 1], known[next], rtol=0, atol=1e-9)
        torch.testing.assert_close(filtered.predicted_covariance[t + 1], spread[next, next], rtol=0, atol=1e-9)


def test_the_published_log_likelihoods() -> None:
    x, u = exact.reference_episodes(STIFF, [0])
    assert x.shape == u.shape == (1, LENGTH, 1)
    np.testing.assert_allclose(u[0, :, 0], np.sin(0.3 * np.arange(LENGTH)))
    assert exact.log_likelihood(STIFF, x, u).item() == pytest.approx(-3.9339898707730, abs=1e-10)
    for world, mean in ((STIFF, -4.866), (MILD, -33.911)):
        found = exact.log_likelihood(world, *exact.reference_episodes(world))
        assert found.shape == (32,)
        assert found.mean().item() == pytest.approx(mean, abs=5e-4)


@pytest.mark.parametrize("name", ["stiff", "mild", "random"])
def test_the_last_action_leads_nowhere_and_the_future_does_not_reach_the_filter(name: str) -> None:
    world, x, u = episode(name, 0)
    pushed, changed = u.clone(), x.clone()
    pushed[:, -1] += 1
    changed[:, 6:] += 1
    assert torch.equal(exact.log_likelihood(world, x, u), exact.log_likelihood(world, x, pushed))
    before, after = exact.kalman_filter(world, x, u), exact.kalman_filter(world, changed, u)
    assert torch.equal(before.mean[:, :6], after.mean[:, :6])
    assert not torch.equal(before.mean[:, 6], after.mean[:, 6])
    pushed = u.clone()
    pushed[:, 4] += 1
    after = exact.kalman_filter(world, x, pushed)
    assert torch.equal(before.mean[:, :5], after.mean[:, :5])  # the action at x_4 changes z_5
    assert not torch.equal(before.mean[:, 5], after.mean[:, 5])


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_covariances_shrink_as_more_is_seen(seed: int) -> None:
    world, x, u = episode("random", seed)
    filtered, smoothed = exact.kalman_filter(world, x, u), exact.kalman_smoother(world, x, u)
    for wide, narrow in (
        (filtered.predicted_covariance, filtered.covariance),
        (filtered.covariance, smoothed.covariance),
    ):
        assert float(torch.linalg.eigvalsh(wide - narrow).min()) > -1e-9
    assert float(torch.linalg.eigvalsh(smoothed.covariance).min()) > 0
    torch.testing.assert_close(smoothed.covariance, smoothed.covariance.mT)


@pytest.mark.parametrize("name", ["stiff", "mild"])
def test_random_episodes_come_from_the_world(name: str, generator: torch.Generator) -> None:
    """The log-likelihood of a world for its own episodes is minus their entropy, and actions are uniform."""
    world, number, length = WORLDS[name], 4000, 12
    x, u = exact.random_episodes(world, number, length, 3.0, generator)
    assert float(u.abs().max()) <= 3
    assert abs(float(u.mean())) < 4 * 3 / (3 * number * length) ** 0.5
    found = exact.log_likelihood(world, x, u)
    _, covariance, seen = dense(world, u[0])
    noise = torch.block_diag(*[world.R] * length)
    entropy = MultivariateNormal(torch.zeros(length).double(), seen @ covariance @ seen.mT + noise).entropy()
    assert abs(float(found.mean() + entropy)) < 4 * float(found.std()) / number**0.5
    assert abs(float(found.var()) / (length / 2) - 1) < 0.15  # half a chi-squared with one degree of freedom per number


def test_random_episodes_are_repeatable_and_heed_the_generator() -> None:
    first, again, other = (
        exact.random_episodes(MILD, 2, 5, 1.0, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
