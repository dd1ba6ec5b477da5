"""VICReg's terms and the spread of latents, compared with closed forms."""

import math

import pytest
import torch

from worldvae.objectives.latent_spread import latent_spread
from worldvae.objectives.vicreg import inverse_error, squared_covariance, std_hinge


def test_the_hinge_is_what_is_missing_of_the_wanted_spread() -> None:
    """Two samples at -a and a have the (unbiased) variance 2 a^2."""
    offsets = torch.tensor([0.0, 0.1, 0.5, 3.0])
    found = std_hinge(torch.stack([-offsets, offsets]))
    missing = [max(0.0, 1 - math.sqrt(2 * a**2 + 1e-4)) for a in offsets.tolist()]
    assert float(found) == pytest.approx(sum(missing) / 4, abs=1e-6)


def test_the_hinge_pushes_a_small_spread_up_and_leaves_a_large_one_alone(generator: torch.Generator) -> None:
    scale = torch.tensor([0.2, 2.0], requires_grad=True)
    (slope,) = torch.autograd.grad(std_hinge(scale * torch.randn(100, 2, generator=generator)), scale)
    assert float(slope[0]) == pytest.approx(-0.5, rel=0.3)  # the mean of two entries, one of which pays
    assert float(slope[1]) == 0


def test_at_a_constant_the_hinge_has_a_finite_gradient() -> None:
    latents = torch.ones(5, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(std_hinge(latents), latents)
    assert slope.isfinite().all()


def test_the_covariance_term_is_the_mean_square_of_all_pairs(generator: torch.Generator) -> None:
    latents = torch.randn(50, 4, generator=generator) @ torch.randn(4, 4, generator=generator)
    covariance = torch.cov(latents.T)
    pairs = [covariance[i, j] ** 2 for i in range(4) for j in range(4) if i != j]
    assert float(squared_covariance(latents)) == pytest.approx(float(sum(pairs) / 12), rel=1e-4)
    assert float(squared_covariance(latents + 7)) == pytest.approx(float(squared_covariance(latents)), rel=1e-3)


def test_uncorrelated_and_single_entries_have_no_covariance() -> None:
    assert float(squared_covariance(torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]))) == 0
    assert float(squared_covariance(torch.tensor([[1.0], [3.0]]))) == 0


def test_the_inverse_error_counts_valid_pairs_alone() -> None:
    guessed, action = torch.zeros(1, 3, 2), torch.tensor([[[1.0, 1.0], [2.0, 0.0], [torch.nan, 9.0]]])
    assert float(inverse_error(guessed, action, torch.tensor([[True, True, False]]))) == pytest.approx(1.5)
    assert float(inverse_error(guessed, action, torch.zeros(1, 3, dtype=torch.bool))) == 0


def test_the_effective_rank_counts_directions_and_does_not_see_a_collapse() -> None:
    corners = torch.cat([torch.eye(4), -torch.eye(4)])
    for scale in (1.0, 1e-3):
        found = latent_spread(scale * corners)
        assert float(found["effective_rank"]) == pytest.approx(4, rel=1e-4)
        assert float(found["std_min"]) == pytest.approx(scale / 2, rel=1e-5)
    line = latent_spread(corners[:, :1].expand(-1, 3))
    assert float(line["effective_rank"]) == pytest.approx(1, rel=1e-4)
    weights = torch.tensor([3.0, 1.0])  # variances in the ratio 9 : 1
    expected = math.exp(-0.9 * math.log(0.9) - 0.1 * math.log(0.1))
    two = latent_spread(torch.cat([torch.diag(weights), -torch.diag(weights)]))
    assert float(two["effective_rank"]) == pytest.approx(expected, rel=1e-4)


def test_latents_that_are_not_finite_have_no_rank() -> None:
    assert latent_spread(torch.tensor([[1.0, torch.nan], [0.0, 1.0]]))["effective_rank"].isnan()
