"""Rewards and ends in dreams: perfect, constant and overconfident predictions have known scores."""

import math

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.studies.reward_error import reward_errors


def test_r2_of_a_perfect_and_of_a_constant_prediction() -> None:
    rows, lengths, _ = walks()
    known = reward_errors(knowing(), rows, lengths, (1, 10, 99))
    assert known.r2 == {1: pytest.approx(1.0, abs=1e-5), 10: pytest.approx(1.0, abs=1e-5)}
    model = knowing()
    with torch.no_grad():
        model.heads.weight.zero_()
        model.heads.bias[0] = 5.0
    assert reward_errors(model, rows, lengths, (5,)).r2[5] < -1
    flat = torch.zeros_like(rows.reward)
    constant = type(rows)(rows.observation, rows.action, flat, rows.termination, rows.is_first)
    assert math.isnan(reward_errors(knowing(), constant, lengths, (5,)).r2[5])  # equal rewards have no R^2


def test_starts_are_every_k_rows_and_never_beyond_the_end() -> None:
    rows, lengths, _ = walks(12, 30)
    found = reward_errors(knowing(), rows, lengths, (5,), context=5)
    assert found.starts[5] == 11 * 5 + 2  # rows 4, 9, ..., 24 -> 29; in the short episode, 4 and 9 -> 14
    assert found.r2[5] == pytest.approx(1.0, abs=1e-5)


def test_brier_of_a_prediction_that_never_sees_an_end() -> None:
    rows, lengths, _ = walks(4, 12)
    found = reward_errors(knowing(), rows, lengths, (1,), context=2)
    ends, p = 1 / found.starts[1], float(torch.sigmoid(torch.tensor(5.0)))
    assert found.base_brier[1] == pytest.approx(ends * (1 - ends), rel=1e-5)
    assert found.brier[1] == pytest.approx(ends * p**2 + (1 - ends) * (1 - p) ** 2, rel=1e-4)
