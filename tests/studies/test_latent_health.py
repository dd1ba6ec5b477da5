"""Error over copy is 0 for the truth, 1 for stillness; beside it stands the spread of the features."""

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.studies.latent_health import latent_health


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
