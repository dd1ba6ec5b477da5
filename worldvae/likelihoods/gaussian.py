"""Gaussian likelihood with a fixed or a learned standard deviation."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.distributions import IsotropicGaussian, full_precision


class GaussianLikelihood(nn.Module):
    """p(x | features) = N(offset + scale * trunk(features), (scale * sigma)^2).

    Args:
        trunk: network from features to means.
        event_shape: shape of one x.
        sigma: the standard deviation in units of `scale`, or its initial value if it is learned.
        learned: None: sigma is fixed; "shared": one sigma is learned for all of x; "each": one for every entry of x.
        offset: prediction of an untrained trunk (0.5 for frames in 0..1).
        floor: lower bound of a learned sigma; without it, a noiseless x makes the density diverge.

    Raises:
        ValueError: If `sigma` is not positive, or is learned and not above `floor`.

    Attributes:
        offset, scale: buffers, broadcastable to x, which `Senses.calibrate` sets to statistics of the data.

    Reference: Rybkin et al. 2021, "Simple and Effective VAE Training with Calibrated Decoders" (learned sigma).
    """

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        event_shape: tuple[int, ...],
        *,
        sigma: float = 1.0,
        learned: str | None = None,
        offset: float = 0.0,
        floor: float = 0.05,
    ) -> None:
        super().__init__()
        self.trunk, self.floor = trunk, floor
        self.register_buffer("offset", torch.full(event_shape, offset))
        self.event_dims = len(event_shape)
        shared = (1,) * self.event_dims
        self.register_buffer("scale", torch.ones(event_shape if self.event_dims == 1 else shared))  # frames: not scaled
        first = sigma if learned is None else sigma - floor
        if first <= 0:
            raise ValueError(f"sigma={sigma} must be above {0 if learned is None else f'its floor {floor}'}")
        log_sigma = torch.full(event_shape if learned == "each" else shared, math.log(first))
        if learned is None:
            self.register_buffer("log_sigma", log_sigma)
        else:
            self.log_sigma = nn.Parameter(log_sigma)

    @property
    def sigma(self) -> Float[Tensor, "*event"]:
        """The standard deviation, broadcastable over one x."""
        if isinstance(self.log_sigma, nn.Parameter):
            return self.scale * (self.floor + self.log_sigma.exp())
        return self.scale * self.log_sigma.exp()

    def forward(self, features: Float[Tensor, "*batch features"]) -> IsotropicGaussian:
        """Return p(x | features)."""
        return IsotropicGaussian(self._mean(features), self.sigma, self.event_dims)

    def _mean(self, features: Tensor) -> Tensor:
        out = full_precision(self.trunk(features))
        return out + self.offset if self.event_dims > 1 else torch.addcmul(self.offset, self.scale, out)
