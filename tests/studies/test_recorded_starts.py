"""Dreams start where rows follow, and take the recorded actions."""

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.studies.recorded_starts import dream_from, filtered, find_starts


def test_starts_lie_where_a_row_follows() -> None:
    found = find_starts(torch.tensor([3, 6, 0]), context=2, every=2)
    assert list(zip(found.episode.tolist(), found.row.tolist(), strict=True)) == [(0, 1), (1, 1), (1, 3), (1, 5)]
    assert found.exists(2).tolist() == [True, True, True, False]
    only = find_starts(torch.tensor([3, 6, 0]), context=3)
    assert only.row.tolist() == [2, 2]
    with pytest.raises(ValueError, match="more than 7 rows, and the longest has 7"):
        find_starts(torch.tensor([3, 6]), context=7)


def test_a_perfect_model_dreams_what_happened() -> None:
    rows, lengths, truth = walks()
    model, starts = knowing(), find_starts(lengths, 3, 4)
    dream = dream_from(model, rows, filtered(model, rows), starts, 6)
    for k in (1, 6):
        some = starts.where(starts.exists(k))
        torch.testing.assert_close(
            dream.states.features[starts.exists(k), k - 1], truth[some.episode, some.row + k], atol=1e-5, rtol=0.0
        )
