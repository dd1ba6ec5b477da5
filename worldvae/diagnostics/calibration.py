"""Calibration: whether the uncertainty of predictions matches their errors."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Calibration:
    """How well samples of k-step predictions match the truth, `[horizon]` each, averaged over rows and entries.

    Attributes:
        coverage: share of true values inside the central interval of `level`; equal to `level` if calibrated, up to
            the rounding of ranks (none for 19 samples and 0.9). NaN if nothing was uncertain.
        level: probability of that interval.
        crps: continuous ranked probability score, in units of the prediction; lower is better.
        energy: energy score, which also measures dependence between entries; lower is better.
        spread: root of the mean variance of the samples, corrected for their finite number.
        skill: root-mean-square error of their mean; equal to the spread if calibrated.
    """

    coverage: Float[Tensor, " horizon"]
    level: float
    crps: Float[Tensor, " horizon"]
    energy: Float[Tensor, " horizon"]
    spread: Float[Tensor, " horizon"]
    skill: Float[Tensor, " horizon"]


def calibration(
    samples: Float[Tensor, "sample row horizon entry"], truth: Float[Tensor, "row horizon entry"], level: float = 0.9
) -> Calibration:
    """Compare samples of predictions with the truth.

    Args:
        samples: at least two predictions of every row.
        truth: the true values.
        level: probability of the central interval whose coverage is counted.

    Raises:
        ValueError: If there are fewer than two samples, or `level` is not between 0 and 1.

    Reference: Gneiting & Raftery 2007, "Strictly Proper Scoring Rules, Prediction, and Estimation", sections 4.2-4.3;
    Fortin et al. 2014, "Why Should Ensemble Spread Match the RMSE of the Ensemble Mean?".
    """
    number = samples.shape[0]
    if number < 2:
        raise ValueError(f"{number} sample of each prediction has no spread: take at least 2")
    if not 0 < level < 1:
        raise ValueError(f"level={level} is not a probability: take one between 0 and 1")
    # Ranks, not interpolated quantiles: the truth is one more draw, and all number + 1 ranks are equally likely.
    rank = (samples < truth).sum(0) + 0.5 * (samples == truth).sum(0)
    outside = (1 - level) / 2 * (number + 1)
    inside = (rank + 0.5 > outside) & (rank + 0.5 < number + 1 - outside)
    # Entries without uncertainty that did not change, such as a frame's background, do not count as predictions.
    open_ = (samples != truth).any(0)
    error = (samples - truth).abs().mean(0)
    ordered = samples.sort(dim=0).values
    weight = 2 * torch.arange(1, number + 1, device=samples.device) - number - 1
    # The mean distance of two different draws, from their order: sum_i (2 i - n - 1) x_(i) * 2 / (n (n - 1)).
    between = (weight.view(-1, 1, 1, 1) * ordered).sum(0) * 2 / (number * (number - 1))
    mean = samples.mean(0)
    return Calibration(
        (inside & open_).sum((0, 2)) / open_.sum((0, 2)),
        level,
        (error - between / 2).mean((0, 2)),
        _energy(samples, truth),
        ((1 + 1 / number) * samples.var(dim=0).mean((0, 2))).sqrt(),
        (mean - truth).square().mean((0, 2)).sqrt(),
    )


def _energy(samples: Tensor, truth: Tensor) -> Float[Tensor, " horizon"]:
    number = samples.shape[0]
    error = (samples - truth).norm(dim=-1).mean(0)
    by_row = samples.permute(1, 2, 0, 3)
    between = torch.cdist(by_row, by_row).sum((-2, -1)) / (number * (number - 1))
    out: Tensor = (error - between / 2).mean(0)
    return out
