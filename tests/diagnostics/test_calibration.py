"""`calibration` recognises calibrated predictions, and those that are not."""

import pytest
import torch

from worldvae.diagnostics import calibration


def predictions(spread: float, shift: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(2000, 3, 2, generator=generator)
    truth = centre + torch.randn(2000, 3, 2, generator=generator)
    samples = centre + shift + spread * torch.randn(40, 2000, 3, 2, generator=generator)
    return samples, truth


def test_a_calibrated_forecast_covers_what_it_says_and_its_spread_is_its_error() -> None:
    found = calibration(*predictions(1.0), level=0.8)
    assert found.coverage.shape == (3,)
    # Ranks are whole numbers: of 41 equally likely ranks, 32 or 33 count as inside.
    assert torch.allclose(found.coverage, torch.full((3,), 0.8), atol=0.025)
    assert torch.allclose(found.spread, found.skill, rtol=0.03)


def test_too_narrow_and_too_wide_forecasts_are_recognised() -> None:
    bold, timid = calibration(*predictions(0.3)), calibration(*predictions(3.0))
    assert (bold.coverage < 0.5).all() and (bold.spread < 0.5 * bold.skill).all()
    assert (timid.coverage > 0.98).all() and (timid.spread > 2 * timid.skill).all()


def test_scores_are_those_of_a_gaussian_and_best_when_honest() -> None:
    """E[CRPS] of N(m, 1) against x ~ N(m, 1) is 1 / sqrt(pi)."""
    honest = calibration(*predictions(1.0))
    assert honest.crps.mean() == pytest.approx(torch.pi**-0.5, abs=0.02)
    for other in (predictions(0.3), predictions(3.0), predictions(1.0, shift=1.0)):
        found = calibration(*other)
        assert (found.crps > honest.crps).all() and (found.energy > honest.energy).all()


def test_crps_is_the_definition_written_out() -> None:
    samples = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1)
    truth = torch.full((1, 1, 1), 2.0)
    between = sum(abs(a - b) for a in (0, 1, 3) for b in (0, 1, 3)) / 6
    found = calibration(samples, truth)
    assert float(found.crps) == pytest.approx((2 + 1 + 1) / 3 - between / 2)
    assert float(found.energy) == pytest.approx(float(found.crps))  # in one dimension the two are equal


def test_certain_entries_that_did_not_change_are_not_counted() -> None:
    samples, truth = predictions(1.0)
    background = torch.zeros_like(truth)
    both = calibration(torch.cat([samples, torch.zeros_like(samples)], -1), torch.cat([truth, background], -1))
    assert torch.equal(both.coverage, calibration(samples, truth).coverage)
    surprised = calibration(torch.zeros(19, 4, 1, 1), torch.ones(4, 1, 1))
    assert float(surprised.coverage) == 0.0


@pytest.mark.parametrize(("number", "level"), [(1, 0.9), (5, 1.0)])
def test_wrong_numbers_are_refused(number: int, level: float) -> None:
    with pytest.raises(ValueError, match="take"):
        calibration(torch.zeros(number, 2, 1, 1), torch.zeros(2, 1, 1), level)
