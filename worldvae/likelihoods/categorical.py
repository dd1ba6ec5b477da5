"""Categorical likelihood: any distribution over the levels of a pixel, or over classes."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from worldvae.distributions import Shape, full_precision


class CategoricalLevels(Distribution):
    """Independent categoricals over `level` values each, evenly spaced in 0..1.

    Args:
        logits: unnormalised log-probabilities; levels are on the last axis.
        event_dims: number of axes of one x, without the levels.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (a name of torch's interface)

    def __init__(self, logits: Float[Tensor, "*shape level"], event_dims: int) -> None:
        self.logits, self.levels = logits, logits.shape[-1]
        split = logits.dim() - 1 - event_dims
        super().__init__(logits.shape[:split], logits.shape[split:-1], validate_args=False)

    @property
    def probs(self) -> Tensor:
        """Probabilities of the levels, on the last axis."""
        return torch.softmax(self.logits, dim=-1)

    @property
    def mean(self) -> Tensor:
        """The expectation of x, where level k has the value k / (levels - 1)."""
        return self.probs @ torch.linspace(0, 1, self.levels, dtype=self.logits.dtype, device=self.logits.device)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw levels, in 0..1."""
        draws = torch.distributions.Categorical(logits=self.logits.detach(), validate_args=False)
        out: Tensor = draws.sample(torch.Size(sample_shape))
        return out.to(self.logits.dtype) / (self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, summed over the event; `value` holds class indices, or floats in 0..1."""
        index = torch.round(value * (self.levels - 1)).long() if value.is_floating_point() else value.long()
        logs = F.log_softmax(self.logits, dim=-1)
        shape = torch.broadcast_shapes(index.shape, logs.shape[:-1])
        chosen = logs.expand(*shape, self.levels).gather(-1, index.expand(shape).unsqueeze(-1)).squeeze(-1)
        dims = len(self.event_shape)
        return chosen.flatten(-dims).sum(-1) if dims else chosen


class CategoricalLikelihood(nn.Module):
    """p(x | features) = prod_i softmax(trunk(features)_i)[x_i]: any distribution of an entry; it learns most slowly.

    Args:
        trunk: network from features to logits. For x of shape (channel, ...) its output is (classes channel, ...), the
            logits of class 0 first; for a single label, `event_shape` (), it is (classes,).
        event_shape: shape of one x, which holds class indices, or levels in 0..1 (bytes divided by 255).
        classes: number of values an entry can have.

    Raises:
        ValueError: if there are fewer than two classes.

    Reference: van den Oord et al. 2016, "Pixel Recurrent Neural Networks", section 3.2 (softmax over 256 values).
    """

    def __init__(self, trunk: nn.Module, event_shape: tuple[int, ...], classes: int = 256) -> None:
        super().__init__()
        if classes < 2:
            raise ValueError(f"classes={classes} leaves no choice: take 256 for bytes, or the number of labels")
        self.trunk, self.event_shape, self.classes = trunk, event_shape, classes

    def forward(self, features: Float[Tensor, "*batch features"]) -> CategoricalLevels:
        """Return p(x | features)."""
        out = full_precision(self.trunk(features))
        dims = len(self.event_shape)
        if dims:
            out = out.unflatten(-dims, (self.classes, self.event_shape[0])).movedim(-dims - 1, -1)
        return CategoricalLevels(out, dims)

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"event_shape={self.event_shape}, classes={self.classes}"
