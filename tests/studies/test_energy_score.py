"""The energy score is proper and unbiased, and several dreams are compared with what happened."""

import math

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.studies.energy_score import best_of, energy_score, sampled_errors


def test_known_values() -> None:
    samples, truth = torch.tensor([[0.0, 0.0], [2.0, 2.0]]), torch.tensor([0.0, 0.0])
    assert float(energy_score(samples, truth)) == pytest.approx(2 * 1.0 - 2.0)
    assert float(best_of(samples, truth)) == 0.0
    same = torch.ones(3, 4, 2)  # equal samples: twice the error
    torch.testing.assert_close(energy_score(same, torch.zeros(4, 2)), torch.full((4,), 2.0))
    with pytest.raises(ValueError, match="1 sample is too few"):
        energy_score(samples[:1], truth)


def test_its_expectation_is_the_closed_form_for_gaussians(generator: torch.Generator) -> None:
    """In one dimension with X, x ~ N(0, 1): 2 E|X - x| - E|X - X'| = 2 / sqrt(pi), for any number of samples."""
    for number in (2, 8):
        samples = torch.randn(number, 20_000, 1, generator=generator)
        found = energy_score(samples, torch.randn(20_000, 1, generator=generator))
        assert float(found.mean()) == pytest.approx(2 / math.sqrt(math.pi), abs=0.04)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.0), (0.0, 0.3), (0.0, 3.0), (1.0, 1.0), (-0.5, 1.0)])
def test_it_is_proper(mean: float, std: float, generator: torch.Generator) -> None:
    """Nothing scores below the truth: neither its mean alone (a blurred prediction), nor what is too wide or moved."""
    noise, truth = torch.randn(8, 20_000, 3, generator=generator), torch.randn(20_000, 3, generator=generator)
    honest = float(energy_score(noise, truth).mean())
    assert float(energy_score(mean + std * noise, truth).mean()) > honest + 0.03


def test_dreams_of_a_deterministic_model() -> None:
    rows, lengths, truth = walks()
    found = sampled_errors(knowing(), rows, lengths, (1, 5, 99), torch.Generator().manual_seed(0))
    assert found.energy_score[:2] == [pytest.approx(0.0, abs=1e-5)] * 2 and found.energy_score[2] is None
    assert found.best_of[:2] == [pytest.approx(0.0, abs=1e-5)] * 2 and found.samples == 8
    still = sampled_errors(knowing(0.0), rows, lengths, (1, 5), torch.Generator(), context=3)
    moved = (truth[:, 7] - truth[:, 2]) / truth[:, 7].std(dim=0, correction=0)
    expected = float(moved.square().mean(1).sqrt().mean())
    assert still.best_of[1] == pytest.approx(expected, rel=0.1)  # (units are those of both horizons together)
    assert still.energy_score[1] == pytest.approx(2 * float(still.best_of[1] or 0), rel=1e-5)


def test_dreams_of_a_vae_differ_and_are_the_same_again(make_model, make_batch) -> None:
    model = make_model()
    rows, lengths = make_batch(model, 3, 8), torch.tensor([7, 7, 5])
    one, again, other = (
        sampled_errors(model, rows, lengths, (1, 3), torch.Generator().manual_seed(seed), context=2, samples=3)
        for seed in (0, 0, 1)
    )
    assert one == again != other


def test_a_model_that_shows_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, lengths, _ = walks(3, 8)
    model = knowing()
    monkeypatch.setattr(type(model), "shows", frozenset())
    with pytest.raises(ValueError, match="decodes neither"):
        sampled_errors(model, rows, lengths, (1,), torch.Generator())
