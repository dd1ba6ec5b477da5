"""How far the features of states are spread: where a model has no KL, this tells whether they have collapsed."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

MOST_ROWS = 4000
"""Rows whose singular values are computed, at most: evenly spaced ones, if there are more."""


def effective_rank(features: Float[Tensor, "row feature"]) -> float:
    """Return exp(entropy) of the normalised singular values of the centred features: from 1 to their number.

    NaN if the features never change, or are not finite.

    It does not detect collapse: the features of an encoder that shrinks everything to a tiny, round cloud have a high
    rank. Report it beside the absolute standard deviations.

    Reference: Roy & Vetterli 2007, "The Effective Rank: A Measure of Effective Dimensionality", definition 1.
    """
    centred = features.double() - features.double().mean(0)
    if not (bool(centred.any()) and bool(centred.isfinite().all())):
        return float("nan")
    values = torch.linalg.svdvals(centred)
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


@dataclass(frozen=True)
class FeatureSpread:
    """Numbers about `State.features` of rows; standard deviations in the units of the features.

    Attributes:
        min_std: smallest standard deviation of a feature over rows.
        median_std: their median.
        max_std: their largest.
        rank: effective rank of the features.
        size: number of features.
    """

    min_std: float
    median_std: float
    max_std: float
    rank: float
    size: int

    @property
    def words(self) -> str:
        """The numbers in one phrase."""
        if self.max_std == 0:
            return f"all {self.size} are constant: they have collapsed"
        return (
            f"median std {self.median_std:.3g} (from {self.min_std:.3g} to {self.max_std:.3g}), "
            f"effective rank {self.rank:.1f} of {self.size}"
        )


@torch.no_grad()
def feature_spread(features: Float[Tensor, "row feature"]) -> FeatureSpread:
    """Measure how far features are spread over rows, such as all rows of held-out episodes."""
    std = features.double().std(dim=0, correction=0)
    rank = effective_rank(features[:: -(-len(features) // MOST_ROWS)])
    return FeatureSpread(float(std.min()), float(std.median()), float(std.max()), rank, features.shape[1])
