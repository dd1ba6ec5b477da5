"""Gaussian likelihood of a scalar whose mean is a smooth function of the features."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal


class ScalarGaussianLikelihood(nn.Module):
    """p(r | features) = N(offset + scale * trunk(features), (scale * sigma)^2), with a learned sigma; used for rewards.

    Its mean is the trunk's own output, and as smooth as the trunk. A two-hot distribution represents a parabola as the
    mean over bins whose log-probabilities the trunk predicts, and its vertex gets corners. The price is scale: errors
    are squared, so that the largest rewards count more than all others.

    Args:
        trunk: network from features to one number.
        floor: lower bound of sigma; without it, a noiseless r makes the density diverge.

    Attributes:
        offset, scale: buffers, which `SequentialVAE.calibrate` sets to mean and standard deviation of the data.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, trunk: nn.Module, floor: float = 0.05) -> None:
        super().__init__()
        self.trunk, self.floor = trunk, floor
        self.register_buffer("offset", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))
        self.log_sigma = nn.Parameter(torch.tensor(math.log(1.0 - floor)))  # initial sigma 1: nothing is explained

    def forward(self, features: Float[Tensor, "*batch features"]) -> Normal:
        """Return the distribution of the scalar."""
        mean = torch.addcmul(self.offset, self.scale, self.trunk(features).float().squeeze(-1))
        sigma = self.scale * (self.floor + self.log_sigma.exp())
        return Normal(mean, sigma.expand_as(mean), validate_args=False)
