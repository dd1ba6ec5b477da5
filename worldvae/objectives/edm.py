"""EDM: a denoiser D(x, sigma) = c_skip x + c_out F(c_in x, c_level), and the regression of F.

The noise sigma is in units of the data's amplitude, and so is its law; only the preconditioning knows the data's
standard deviation s ("spread"). Rows are flat: `[batch, entry]`.

Reference: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", table 1 and
section 5.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Field = Callable[[Tensor, Tensor], Tensor]
"""F(u, level): `[batch, entry]` and `[batch]` to `[batch, entry]`."""

BEYOND = 4.0
"""Noise is drawn up to this multiple of the law's `high`, where sampling begins (DIAMOND: 20 and 5)."""


@dataclass(frozen=True)
class Preconditioning:
    """The coefficients for some noise levels: columns `[batch, 1]` and, for the network, `level` `[batch]`."""

    skip: Float[Tensor, "batch 1"]
    out: Float[Tensor, "batch 1"]
    into: Float[Tensor, "batch 1"]
    level: Float[Tensor, " batch"]


def precondition(sigma: Float[Tensor, " batch"], spread: Float[Tensor, ""]) -> Preconditioning:
    """Return the coefficients with which input, target and output of F have unit variance at every sigma."""
    column = sigma.unsqueeze(-1)
    total = (column.square() + spread.square()).sqrt()
    return Preconditioning((spread / total).square(), column * spread / total, 1 / total, sigma.log() / 4)


def denoised(
    field: Field, x: Float[Tensor, "batch entry"], sigma: Float[Tensor, " batch"], spread: Float[Tensor, ""]
) -> Float[Tensor, "batch entry"]:
    """Return D(x, sigma), an estimate of the mean of clean data given x = clean + sigma * noise."""
    c = precondition(sigma, spread)
    return c.skip * x + c.out * field(c.into * x, c.level)


def edm_loss(
    field: Field,
    clean: Float[Tensor, "batch entry"],
    noise: Float[Tensor, "batch entry"],
    sigma: Float[Tensor, " batch"],
    spread: Float[Tensor, ""],
) -> Float[Tensor, " batch"]:
    """Return the mean squared error of F in each row: that of D weighted by 1 / c_out^2."""
    c = precondition(sigma, spread)
    x = clean + sigma.unsqueeze(-1) * noise
    target = (clean - c.skip * x) / c.out
    return (field(c.into * x, c.level) - target).square().mean(-1)


@dataclass(frozen=True)
class NoiseLaw:
    """The law of the noise in training: ln sigma is normal, clipped to low .. 4 high.

    Attributes:
        mean: mean of ln sigma.
        std: standard deviation of ln sigma.
        low: sigma at which sampling ends.
        high: sigma at which it begins.
    """

    mean: float
    std: float
    low: float
    high: float

    def draw(
        self, count: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Float[Tensor, " batch"]:
        """Draw `count` noise levels."""
        normal = torch.randn(count, device=device, generator=generator)
        return (self.mean + self.std * normal).exp().clamp(self.low, BEYOND * self.high)
