"""The linear probe finds a linear relation if there is one, and otherwise none."""

import pytest
import torch

from worldvae.diagnostics import linear_probe


def test_a_linear_map_is_found_and_noise_is_not(generator: torch.Generator) -> None:
    features = torch.randn(2000, 5, generator=generator)
    exact = features @ torch.randn(5, 1, generator=generator) + 3
    half = exact + exact.std() * torch.randn(2000, 1, generator=generator)
    noise = torch.randn(2000, 1, generator=generator)
    found = linear_probe(features, torch.cat([exact, half, noise], dim=1))
    assert found[0] > 0.999
    assert found[1] == pytest.approx(0.5, abs=0.06)
    assert abs(found[2]) < 0.02


def test_a_constant_has_no_score_and_few_rows_are_refused(generator: torch.Generator) -> None:
    features = torch.randn(100, 5, generator=generator)
    assert bool(linear_probe(features, torch.ones(100, 1)).isnan())
    with pytest.raises(ValueError, match="3 rows are too few"):
        linear_probe(features[:3], torch.ones(3, 1))
