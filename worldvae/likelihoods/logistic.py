"""Discretised logistic likelihood: exact probabilities of byte values."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from worldvae.distributions import Shape, full_precision


class DiscretisedLogistic(Distribution):
    """A logistic variable in units of 0..1, rounded to one of `levels` values; the outermost values include the tails.

    P(x) = sigmoid((x + h - loc) / scale) - sigmoid((x - h - loc) / scale),  h = 1 / (2 (levels - 1)),
    where x - h is minus infinity for x = 0, and x + h infinity for x = 1.

    Args:
        loc: centre of the logistic, in the shape of x.
        scale: its scale (the standard deviation is scale pi / sqrt 3).
        event_dims: number of axes of one x.
        levels: values are k / (levels - 1).

    Reference: Salimans et al. 2017, "PixelCNN++", section 2.1 (one component).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (a name of torch's interface)

    def __init__(
        self, loc: Float[Tensor, "*shape"], scale: Float[Tensor, "*shape"], event_dims: int, levels: int = 256
    ) -> None:
        self.loc, self.scale, self.levels = loc, scale, levels
        split = loc.dim() - event_dims
        super().__init__(loc.shape[:split], loc.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean of the logistic clipped to 0..1: within half a level of the exact mean, which costs all levels."""
        mean = self.scale * (F.softplus(self.loc / self.scale) - F.softplus((self.loc - 1) / self.scale))
        return mean.clamp(0, 1)  # rounding may leave 0..1

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw levels, in 0..1."""
        uniform = torch.rand(*sample_shape, *self.loc.shape, dtype=self.loc.dtype, device=self.loc.device)
        x = (self.loc + self.scale * torch.logit(uniform, eps=1e-7)).detach().clamp(0, 1)
        return torch.round(x * (self.levels - 1)) / (self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, summed over the event; `value` holds levels in 0..1."""
        half = 0.5 / (self.levels - 1)
        upper = (value + half - self.loc) / self.scale
        lower = (value - half - self.loc) / self.scale
        # sigmoid(u) - sigmoid(l) = sigmoid(u) sigmoid(-l) (1 - exp(l - u)): a product, which avoids cancellation.
        inner = -torch.expm1(-2 * half / self.scale)
        below = torch.where(value <= half, 0, F.logsigmoid(-lower))
        above = torch.where(value >= 1 - half, 0, F.logsigmoid(upper))
        between = torch.where((value > half) & (value < 1 - half), inner.log(), 0)
        return (above + below + between).flatten(-len(self.event_shape)).sum(-1)


class DiscretisedLogisticLikelihood(nn.Module):
    """p(x | features): a discretised logistic per entry, whose centre and scale the trunk predicts.

    Args:
        trunk: network from features to twice the first axis of x: the centres, then the raw log-scales.
        event_shape: shape of one x, which holds levels in 0..1 (bytes divided by 255).
        scale: scale for an untrained trunk.
        offset: the centre of an untrained trunk; a buffer in the shape of x, which `Senses.calibrate` sets.
        floor: lower bound of the scale; Salimans et al. take exp(-7) in units of -1..1.
        levels: number of values an entry can have.

    Raises:
        ValueError: If `scale` is not above `floor`.

    Reference: Salimans et al. 2017, "PixelCNN++", section 2.1 (one component).
    """

    offset: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        event_shape: tuple[int, ...],
        *,
        scale: float = 0.1,
        offset: float = 0.5,
        floor: float = 5e-4,
        levels: int = 256,
    ) -> None:
        super().__init__()
        if scale <= floor:
            raise ValueError(f"scale={scale} must be above its floor {floor}")
        self.trunk, self.event_shape = trunk, event_shape
        self.register_buffer("offset", torch.full(event_shape, offset))
        self.floor, self.levels = floor, levels
        self.log_scale = math.log(scale - floor)

    def forward(self, features: Float[Tensor, "*batch features"]) -> DiscretisedLogistic:
        """Return p(x | features)."""
        dims = len(self.event_shape)
        centre, raw = full_precision(self.trunk(features)).chunk(2, dim=-dims)
        scale = self.floor + (raw + self.log_scale).exp()
        return DiscretisedLogistic(self.offset + centre, scale, dims, self.levels)

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"event_shape={self.event_shape}, levels={self.levels}"
