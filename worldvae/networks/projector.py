"""A projector with batch normalisation, whose statistics are chosen by the caller and not by `module.training`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.1


class BatchNorm(nn.Module):
    """y = weight (x - mean) / sqrt(variance + eps) + bias, per entry.

    Mean and variance are those of the rows of a batch, or running averages of them.

    Args:
        width: length of x.
        eps: added to the variance.

    Attributes:
        mean, variance: running averages; the first batches count equally, later ones with weight `MOMENTUM`.
        batches: number of batches in them.

    Reference: Ioffe & Szegedy 2015, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal
        Covariate Shift".
    """

    mean: Tensor
    variance: Tensor
    batches: Tensor

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: Float[Tensor, "*batch width"], of_batch: bool = False) -> Float[Tensor, "*batch width"]:
        """Normalise each entry.

        Args:
            x: any leading shape.
            of_batch: use the statistics of `x` itself and add them to the running averages; otherwise use these.
        """
        mean, variance = self.mean, self.variance
        if of_batch:
            rows = x.reshape(-1, x.shape[-1])
            mean, variance = rows.mean(0), rows.var(0, correction=0)
            self._remember(mean.detach(), variance.detach())
        return torch.addcmul(self.bias, x - mean, self.weight * torch.rsqrt(variance + self.eps))

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        # An update whose numbers are not finite is skipped: it must not stay in the averages for good.
        sound = (mean.isfinite() & variance.isfinite()).all()
        self.batches += sound
        share = torch.clamp(1 / self.batches.clamp(min=1), min=MOMENTUM)
        for average, new in ((self.mean, mean), (self.variance, variance)):
            average.copy_(torch.where(sound, torch.lerp(average, new, share), average))


class Projector(nn.Module):
    """Linear, batch norm, SiLU, Linear.

    The norm keeps the units of the hidden layer over a batch, not of one row, so that the length of an output is free;
    layer normalisation would fix it.

    Args:
        features: length of the input.
        hidden: width of the hidden layer.
        out: length of the output.
    """

    def __init__(self, features: int, hidden: int, out: int) -> None:
        super().__init__()
        self.first = nn.Linear(features, hidden, bias=False)
        self.norm = BatchNorm(hidden)
        self.last = nn.Linear(hidden, out)

    def forward(self, x: Float[Tensor, "*batch features"], of_batch: bool = False) -> Float[Tensor, "*batch out"]:
        """Project; see `BatchNorm.forward` for `of_batch`."""
        out: Tensor = self.last(nn.functional.silu(self.norm(self.first(x), of_batch)))
        return out
