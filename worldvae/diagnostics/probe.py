"""How well a linear map predicts the true state from the latent state."""

import torch
from jaxtyping import Float
from torch import Tensor


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
    features, targets = features.double(), targets.double()
    half = len(features) // 2
    mean, std = features[:half].mean(0), features[:half].std(0).clamp(min=1e-8)
    x = (features - mean) / std
    offset = targets[:half].mean(0)
    gram = x[:half].T @ x[:half] + ridge * half * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, x[:half].T @ (targets[:half] - offset))
    held = targets[half:]
    residual = (held - offset - x[half:] @ weights).square().mean(0)
    variance = held.var(dim=0, correction=0)
    return torch.where(variance > 0, 1 - residual / variance, torch.nan).float()
