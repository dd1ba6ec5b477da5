"""How well a linear map predicts the true state from the latent state."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class RidgeProbe:
    """A linear map from features to targets; `fit_ridge` returns one.

    Attributes:
        mean: of the features to which it was fitted.
        std: of the same features.
        weights: of standardised features.
        offset: mean target.
    """

    mean: Float[Tensor, " feature"]
    std: Float[Tensor, " feature"]
    weights: Float[Tensor, "feature target"]
    offset: Float[Tensor, " target"]

    def __call__(self, features: Float[Tensor, "*batch feature"]) -> Float[Tensor, "*batch target"]:
        """Return the predicted targets, in double precision."""
        return self.offset + (features.double() - self.mean) / self.std @ self.weights


def fit_ridge(
    features: Float[Tensor, "row feature"], targets: Float[Tensor, "row target"], ridge: float = 1e-3
) -> RidgeProbe:
    """Return the ridge regression of targets on features.

    Args:
        features: regressors.
        targets: numbers to predict.
        ridge: penalty, in units of the number of rows and the features' variance.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    if len(features) < 2:
        raise ValueError(f"{len(features)} rows are too few to fit a regression to: take at least 2")
    features, targets = features.double(), targets.double()
    mean, std = features.mean(0), features.std(0).clamp(min=1e-8)
    offset = targets.mean(0)
    x, y = (features - mean) / std, targets - offset
    penalty = ridge * len(x) * torch.eye(min(x.shape), dtype=x.dtype, device=x.device)
    if x.shape[1] <= len(x):
        weights = torch.linalg.solve(x.T @ x + penalty, x.T @ y)
    else:  # the same weights, from a smaller system of equations
        weights = x.T @ torch.linalg.solve(x @ x.T + penalty, y)
    return RidgeProbe(mean, std, weights, offset)


def r_squared(predicted: Float[Tensor, "row target"], true: Float[Tensor, "row target"]) -> Float[Tensor, " target"]:
    """Return R^2 of each target: 1 - mean squared error / variance; NaN for a target that does not vary."""
    residual = (true - predicted).square().mean(0)
    variance = true.var(dim=0, correction=0)
    return torch.where(variance > 0, 1 - residual / variance, torch.nan).float()


def linear_probe(
    features: Float[Tensor, "row feature"], targets: Float[Tensor, "row target"], ridge: float = 1e-3
) -> Float[Tensor, " target"]:
    """Return R^2 of each target on the second half of the rows, for a ridge regression fitted to the first half.

    1 if a linear map of the features gives the target, 0 if it is no better than the mean, below 0 if it is worse.
    A target that does not vary has no R^2: NaN.

    Args:
        features: regressors, in the order of time (so that neighbouring rows fall on the same side).
        targets: numbers to predict.
        ridge: penalty, in units of the number of rows and the features' variance.

    Reference: Alain & Bengio 2017, "Understanding Intermediate Layers Using Linear Classifier Probes".
    """
    if len(features) < 4:
        raise ValueError(f"{len(features)} rows are too few to fit on one half and score on the other: take at least 4")
    half = len(features) // 2
    probe = fit_ridge(features[:half], targets[:half], ridge)
    return r_squared(probe(features[half:]), targets[half:].double())
