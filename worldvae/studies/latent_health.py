"""Whether features have collapsed, and whether imagined ones come closer to the truth than those held still."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldvae.models.world_model import WorldModel
from worldvae.studies.recorded_starts import dream_from, filtered, find_starts
from worldvae.types import Batch

MOST_ROWS = 4000
"""Rows whose singular values are computed, at most: evenly spaced ones, if there are more."""


def effective_rank(features: Float[Tensor, "row feature"]) -> float:
    """Return exp(entropy) of the normalised singular values of the centred features: from 1 to their number; NaN for 0.

    It does not detect collapse: the features of an encoder that shrinks everything to a tiny, round cloud have a high
    rank. Report it beside the absolute standard deviations.

    Reference: Roy & Vetterli 2007, "The Effective Rank: A Measure of Effective Dimensionality", definition 1.
    """
    centred = features.double() - features.double().mean(0)
    if not bool(centred.any()):
        return float("nan")
    values = torch.linalg.svdvals(centred)
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


@dataclass(frozen=True)
class LatentHealth:
    """Numbers about `State.features` of held-out rows.

    Attributes:
        min_std: smallest standard deviation of a feature over rows.
        median_std: their median.
        max_std: their largest.
        rank: effective rank of the features.
        size: number of features.
        error_over_copy: by horizon, |z' - z|^2 / |z_start - z|^2, summed over features and starts: z' imagined, z
            filtered from the row itself, z_start filtered where the dream starts. 1 is no better than holding still.
            NaN if the features never change.
    """

    min_std: float
    median_std: float
    max_std: float
    rank: float
    size: int
    error_over_copy: dict[int, float]


@torch.no_grad()
def latent_health(
    model: WorldModel,
    rows: Batch,
    lengths: Int[Tensor, " episode"],
    horizons: tuple[int, ...] = (1, 5, 10, 20),
    context: int = 5,
    every: int = 0,
) -> LatentHealth:
    """Measure the features of filtered rows, and those imagined from some of them.

    Args:
        model: the world model.
        rows: held-out episodes `[episode, time]` from their first row on.
        lengths: decisions of each episode; row t exists for t <= length.
        horizons: imagined steps, 1 or more; those that no episode reaches are left out.
        context: rows that are observed up to the first start.
        every: rows between two starts (0: one start an episode).

    Raises:
        ValueError: If no episode is longer than the context.
    """
    states, starts = filtered(model, rows), find_starts(lengths, context, every)
    features = states.features.cpu()
    flat = features[torch.arange(features.shape[1]) <= lengths.cpu().unsqueeze(1)]
    std = flat.double().std(dim=0, correction=0)
    imagined = dream_from(model, rows, states, starts, max(horizons)).states.features.cpu()
    ratios: dict[int, float] = {}
    for k in horizons:
        exists = starts.exists(k)
        if not bool(exists.any()):
            continue
        some = starts.where(exists)
        true = features[some.episode, some.row + k].double()
        held = (features[some.episode, some.row].double() - true).square().sum()
        missed = (imagined[exists, k - 1].double() - true).square().sum()
        ratios[k] = float(missed / held) if float(held) > 0 else float("nan")
    rank = effective_rank(flat[:: -(-len(flat) // MOST_ROWS)])
    return LatentHealth(float(std.min()), float(std.median()), float(std.max()), rank, flat.shape[1], ratios)
