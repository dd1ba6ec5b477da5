"""Several dreams from one start against what happened: the energy score, and the best of them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldvae.models.world_model import WorldModel
from worldvae.studies.recorded_starts import dream_from, filtered, find_starts
from worldvae.types import Batch


def energy_score(
    samples: Float[Tensor, "sample *batch dim"], truth: Float[Tensor, "*batch dim"]
) -> Float[Tensor, "*batch"]:
    """Return the unbiased estimate of 2 E|X - x| - E|X - X'|, with X and X' drawn from the prediction.

    |.| is the Euclidean norm divided by the root of the number of entries: a root mean square. The score is proper:
    its expectation is smallest for the true distribution, which both a blurred mean and a sharp, but wrong, picture
    miss. A single deterministic prediction has no X': for equal samples the score is twice their error.

    Args:
        samples: two or more draws of the prediction.
        truth: what happened.

    Raises:
        ValueError: If there is only one sample.

    Reference: Gneiting & Raftery 2007, "Strictly Proper Scoring Rules, Prediction, and Estimation", equation 22
    (there with the opposite sign and half as large).
    """
    number = len(samples)
    if number < 2:
        raise ValueError(f"{number} sample is too few for an energy score: draw 2 or more")
    error = _rms(samples - truth).mean(0)
    pairs = [_rms(samples[i] - samples[j]) for i in range(number) for j in range(i)]
    return 2 * error - torch.stack(pairs).mean(0)


def best_of(samples: Float[Tensor, "sample *batch dim"], truth: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
    """Return the root-mean-square error of the sample that is closest to the truth."""
    return _rms(samples - truth).amin(0)


def _rms(difference: Tensor) -> Tensor:
    return difference.square().mean(-1).sqrt()


@dataclass(frozen=True)
class SampledErrors:
    """Scores of several dreams per start, averaged over starts, at each horizon; None where no episode is so long.

    Frames are in 0..1; vectors in units of each entry's standard deviation in the true rows.

    Attributes:
        energy_score: see the function of this name; smaller is better.
        best_of: error of the best dream; the best may be another one at another horizon.
        samples: dreams per start.
    """

    energy_score: list[float | None]
    best_of: list[float | None]
    samples: int


@torch.no_grad()
def sampled_errors(
    model: WorldModel,
    rows: Batch,
    lengths: Int[Tensor, " episode"],
    horizons: tuple[int, ...],
    generator: torch.Generator,
    context: int = 5,
    samples: int = 8,
    every: int = 0,
) -> SampledErrors:
    """Dream several times from each start, with different noise, and score the means that the states decode to.

    Args:
        model: the world model; it must show something.
        rows: episodes `[episode, time]` from their first row on.
        lengths: decisions of each episode.
        horizons: steps ahead that are scored.
        generator: source of the noise, on the device of the model.
        context: rows that are observed up to the first start.
        samples: dreams per start, two or more.
        every: rows between two starts (0: one start an episode).

    Raises:
        ValueError: If the model decodes nothing, or no episode is longer than the context.
    """
    if not model.shows:
        raise ValueError("an energy score compares frames or vectors, and this model decodes neither")
    states, starts = filtered(model, rows), find_starts(lengths, context, every)
    inside = [h for h in horizons if bool(starts.exists(h).any())]
    if not inside:
        none: list[float | None] = [None] * len(horizons)
        return SampledErrors(none, none, samples)
    column = torch.tensor(inside)
    there = (starts.row.unsqueeze(1) + column).clamp(max=rows.reward.shape[1] - 1)
    seen = rows.observation[starts.episode.unsqueeze(1), there].to(model.device)
    drawn = []
    for _ in range(samples):
        dream = dream_from(model, rows, states, starts, max(inside), generator)
        truth, shown = model.in_shown_units(dream.states[:, (column - 1).to(model.device)], seen)
        drawn.append(shown.float().flatten(2).cpu())
    known, guesses = truth.float().flatten(2).cpu(), torch.stack(drawn)
    exists = torch.stack([starts.exists(h) for h in inside], dim=1)
    if rows.observation.pixels is None:
        spread = known[exists].std(dim=0, correction=0)
        known, guesses = known[..., spread > 0] / spread[spread > 0], guesses[..., spread > 0] / spread[spread > 0]
    scores = [_means(score(guesses, known), exists) for score in (energy_score, best_of)]
    at = [[found[inside.index(h)] if h in inside else None for h in horizons] for found in scores]
    return SampledErrors(at[0], at[1], samples)


def _means(values: Float[Tensor, "start horizon"], exists: Tensor) -> list[float]:
    return [float(values[:, i][exists[:, i]].mean()) for i in range(values.shape[1])]
