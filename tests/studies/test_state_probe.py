"""The probe of features: perfect where imagination is, and worse the further a wrong model imagines."""

import math

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.diagnostics import fit_ridge, r_squared
from worldvae.studies.state_probe import fit_state_probe, state_probe_r2, with_cos_and_sin


def test_imagined_states_are_read_like_inferred_ones() -> None:
    rows, lengths, truth = walks()
    probe = fit_state_probe(knowing(), rows, lengths, truth)
    known = state_probe_r2(probe, knowing(), rows, lengths, truth, every=5)
    assert list(known) == [0, 1, 5, 10, 20]
    assert all(score > 0.999 for scores in known.values() for score in scores)
    wrong = state_probe_r2(probe, knowing(-0.5), rows, lengths, truth, (0, 1, 10, 40), every=5)
    assert list(wrong) == [0, 1, 10]
    assert wrong[0] == pytest.approx(known[0]) and wrong[0][0] > wrong[1][0] > wrong[10][0]


def test_more_features_than_rows_give_the_same_ridge(generator: torch.Generator) -> None:
    """The dual system has the solution of the primal one, (X'X + p)^-1 X'y."""
    features, targets = torch.randn(20, 50, generator=generator), torch.randn(20, 2, generator=generator)
    probe = fit_ridge(features, targets, 0.1)
    x = (features.double() - probe.mean) / probe.std
    primal = torch.linalg.solve(x.T @ x + 0.1 * 20 * torch.eye(50), x.T @ (targets.double() - targets.double().mean(0)))
    torch.testing.assert_close(probe.weights, primal)
    assert float(r_squared(probe(features), targets.double()).min()) > 0.5
    with pytest.raises(ValueError, match="1 rows are too few"):
        fit_ridge(features[:1], targets[:1])


def test_an_angle_becomes_cosine_and_sine() -> None:
    found = with_cos_and_sin(torch.tensor([[math.pi / 2, 7.0]]), 0)
    torch.testing.assert_close(found, torch.tensor([[0.0, 7.0, 1.0]]), atol=1e-6, rtol=0.0)
