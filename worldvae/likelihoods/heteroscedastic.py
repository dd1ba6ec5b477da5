"""Gaussian likelihood whose standard deviation is predicted, too."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal
from torch.nn import functional as F

from worldvae.distributions import full_precision


class HeteroscedasticLikelihood(nn.Module):
    """p(x | features) = N(offset + mean, diag(floor + softplus(raw + c))^2), where (mean, raw) = trunk(features).

    Every entry of x has its own standard deviation, which depends on the features; use it for noise that varies over x.
    If it does not, `GaussianLikelihood` is easier to train.

    Args:
        trunk: network from features to twice the first axis of x: the means, then the raw deviations.
        event_shape: shape of one x.
        sigma: the standard deviation for an untrained trunk (raw = 0).
        offset: prediction of an untrained trunk; a buffer in the shape of x, which `Senses.calibrate` sets.
        floor: lower bound of the deviation; without it, a pixel that never changes makes the density diverge.

    Raises:
        ValueError: If `sigma` is not above `floor`.

    Reference: Nix & Weigend 1994, "Estimating the mean and variance of the target probability distribution".
    """

    offset: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        event_shape: tuple[int, ...],
        *,
        sigma: float = 0.25,
        offset: float = 0.5,
        floor: float = 0.02,
    ) -> None:
        super().__init__()
        if sigma <= floor:
            raise ValueError(f"sigma={sigma} must be above its floor {floor}")
        self.trunk, self.event_shape = trunk, event_shape
        self.register_buffer("offset", torch.full(event_shape, offset))
        self.floor = floor
        self.shift = math.log(math.expm1(sigma - floor))  # softplus(shift) = sigma - floor

    def forward(self, features: Float[Tensor, "*batch features"]) -> Distribution:
        """Return p(x | features)."""
        dims = len(self.event_shape)
        mean, raw = full_precision(self.trunk(features)).chunk(2, dim=-dims)
        sigma = self.floor + F.softplus(raw + self.shift)
        return Independent(Normal(self.offset + mean, sigma, validate_args=False), dims, validate_args=False)

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"event_shape={self.event_shape}, floor={self.floor}"
