"""Collapse shows in the standard deviations, not in the rank; error over copy is 0 for the truth, 1 for stillness."""

import math

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.studies.latent_health import effective_rank, latent_health


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


def test_error_over_copy() -> None:
    rows, lengths, truth = walks()
    known = latent_health(knowing(), rows, lengths, (1, 5, 99), every=4)
    assert list(known.error_over_copy) == [1, 5]
    assert max(known.error_over_copy.values()) < 1e-6
    still = latent_health(knowing(0.0), rows, lengths, (1, 5), every=4)
    assert list(still.error_over_copy.values()) == [pytest.approx(1.0, rel=1e-4)] * 2
    half = latent_health(knowing(0.05), rows, lengths, (5,))
    assert half.error_over_copy[5] == pytest.approx(0.25, rel=1e-3)
    std = torch.cat([truth[:-1].flatten(0, 1), truth[-1, : int(lengths[-1]) + 1]]).std(dim=0, correction=0)
    assert known.min_std == pytest.approx(float(std.min()), rel=1e-4) and known.size == 2
    assert known.min_std <= known.median_std <= known.max_std
