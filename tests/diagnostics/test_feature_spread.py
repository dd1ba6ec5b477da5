"""Collapse shows in the standard deviations of features, not in their rank."""

import math

import pytest
import torch

from worldvae.diagnostics import effective_rank, feature_spread


def test_effective_rank_of_known_spectra(generator: torch.Generator) -> None:
    white = torch.linalg.qr(torch.randn(500, 8, generator=generator))[0]
    assert effective_rank(white) == pytest.approx(8, abs=0.2)
    line = torch.linspace(0, 1, 50).unsqueeze(1)
    assert effective_rank(torch.cat([line, 2 * line, -line], 1)) == pytest.approx(1.0, abs=1e-3)
    two = torch.diag(torch.tensor([3.0, 1.0]))
    both = torch.cat([two, -two])  # singular values in the ratio 3 : 1, entropy of (3/4, 1/4)
    assert effective_rank(both) == pytest.approx((4 / 3) ** 0.75 * 4**0.25, rel=1e-5)
    assert effective_rank(1e-4 * white) == pytest.approx(effective_rank(white), rel=1e-3)  # does not see collapse
    assert math.isnan(effective_rank(torch.ones(5, 3)))
    assert math.isnan(effective_rank(torch.tensor([[1.0, math.nan], [0.0, 1.0], [2.0, 3.0]])))


def test_standard_deviations_tell_a_small_cloud_from_a_large_one(generator: torch.Generator) -> None:
    rows = torch.randn(9001, 3, generator=generator) * torch.tensor([1.0, 2.0, 4.0])
    found = feature_spread(rows)
    assert [found.min_std, found.median_std, found.max_std] == pytest.approx([1, 2, 4], rel=0.05)
    shares = torch.tensor([1.0, 2.0, 4.0]) / 7  # singular values are the standard deviations, up to a factor
    assert found.rank == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())), rel=0.02) and found.size == 3
    small = feature_spread(1e-3 * rows)
    assert small.rank == pytest.approx(found.rank, rel=1e-4)
    assert small.median_std == pytest.approx(1e-3 * found.median_std, rel=1e-4)
    assert "median std 2" in found.words and "of 3" in found.words
    assert "collapsed" in feature_spread(torch.ones(20, 3)).words
