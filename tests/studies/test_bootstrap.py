"""Intervals over seeds and episodes: known widths, and differences that leave out what both find hard."""

import numpy as np
import pytest

from worldvae.studies.bootstrap import paired_difference, two_level_interval


def test_one_seed_has_the_interval_of_its_episodes() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 400).tolist()
    low, high = two_level_interval([values])
    assert (low + high) / 2 == pytest.approx(np.mean(values), abs=0.03)
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(values) / 20, rel=0.1)


def test_seeds_that_differ_widen_the_interval() -> None:
    alike = [[0.0, 1.0] * 50 for _ in range(5)]
    apart = [[10.0 * seed + value for value in one] for seed, one in enumerate(alike)]
    (low, high), (lowest, highest) = two_level_interval(alike), two_level_interval(apart)
    assert highest - lowest > 20 * (high - low)
    # Five means at 0, 10, .., 40: a resample of five has a deviation of 14.1 / sqrt(5) = 6.3.
    assert (highest - lowest) / 2 == pytest.approx(1.96 * 6.3, rel=0.15)
    with pytest.raises(ValueError, match="at least one seed"):
        two_level_interval([])


def test_paired_differences() -> None:
    hard = [0.0, 100.0, -50.0]
    mine = {0: [x + 1 for x in hard], 1: [x + 2 for x in hard], 7: [1e6]}
    theirs = {1: [*hard, 1e6], 0: hard, 9: [1e6]}
    found = paired_difference(mine, theirs)
    assert (found.mean, found.seeds, found.episodes) == (1.5, 2, 6)
    assert found.low == pytest.approx(1.0) and found.high == pytest.approx(2.0)  # two seeds, and nothing else, vary
    assert paired_difference(mine, theirs) == found
    with pytest.raises(ValueError, match="at least one seed"):
        paired_difference({0: [1.0]}, {1: [1.0]})
