"""Intervals of a mean over seeds and episodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Interval = tuple[float, float]


def two_level_interval(values: Sequence[Sequence[float]], level: float = 0.95, resamples: int = 4000) -> Interval:
    """Return the bootstrap interval of the mean of means: seeds are resampled, and the episodes of each drawn seed.

    Episodes of one seed share its weights. With episodes alone resampled, the interval would be one of these weights
    and not of the method. (With a single seed it is just that.)

    Args:
        values: one number per episode, for each seed; seeds may have different numbers of episodes.
        level: probability inside the interval.
        resamples: number of resamples; they are seeded.

    Raises:
        ValueError: If there is no seed, or one without episodes.

    Reference: Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", section 4.
    """
    seeds = [np.asarray(one, dtype=np.float64) for one in values]
    if not seeds or any(len(one) == 0 for one in seeds):
        raise ValueError("an interval needs at least one seed, and at least one episode for each")
    rng = np.random.default_rng(0)
    # One table of means of resampled episodes per seed; a resample of seeds picks from them.
    drawn = rng.integers(len(seeds), size=(resamples, len(seeds)))
    means = np.empty(drawn.shape)
    for i, one in enumerate(seeds):
        slots = drawn == i
        means[slots] = one[rng.integers(len(one), size=(int(slots.sum()), len(one)))].mean(axis=1)
    low, high = np.quantile(means.mean(axis=1), ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


@dataclass(frozen=True)
class Difference:
    """By how much one method exceeds another.

    Attributes:
        mean: mean over seeds of the mean over episodes.
        low: lower end of its interval.
        high: upper end.
        seeds: number of seeds that both have.
        episodes: number of pairs of episodes in all.
    """

    mean: float
    low: float
    high: float
    seeds: int
    episodes: int


def paired_difference(
    mine: Mapping[int, Sequence[float]],
    theirs: Mapping[int, Sequence[float]],
    level: float = 0.95,
    resamples: int = 4000,
) -> Difference:
    """Return the mean difference of two methods in the same episodes of the same seeds, with its bootstrap interval.

    Episodes are paired by their number, as far as both have them: they start alike, so that the difference leaves out
    what is easy or hard for both. Seeds that only one has are left out.

    Args:
        mine: a number for each episode, by seed.
        theirs: the same of the other method.
        level: probability inside the interval.
        resamples: number of resamples; they are seeded.

    Raises:
        ValueError: If no seed has an episode in both.
    """
    pairs = [[a - b for a, b in zip(mine[s], theirs[s], strict=False)] for s in sorted(mine.keys() & theirs.keys())]
    pairs = [one for one in pairs if one]
    low, high = two_level_interval(pairs, level, resamples)
    mean = sum(sum(one) / len(one) for one in pairs) / len(pairs)
    return Difference(mean, low, high, len(pairs), sum(map(len, pairs)))
