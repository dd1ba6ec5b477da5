"""Running means and standard deviations, by which a prior standardises latents whose scale changes in training."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Exponentially weighted moments of the vectors that `update` was given; they are part of the state dict.

    Early moments are not biased towards their initial value: they are divided by the weight given so far (as Adam's).

    Args:
        size: length of the vectors.
        rate: weight of the newest batch; about the last 1 / rate batches count.
        smallest: lower limit of the standard deviation, for an entry that is constant.
    """

    first: Tensor
    second: Tensor
    weight: Tensor

    def __init__(self, size: int, rate: float = 0.01, smallest: float = 1e-3) -> None:
        super().__init__()
        self.rate, self.smallest = rate, smallest
        self.register_buffer("first", torch.zeros(size))
        self.register_buffer("second", torch.zeros(size))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def update(self, x: Float[Tensor, "*batch size"]) -> None:
        """Take a batch into account; one without elements is ignored."""
        rows = x.float().reshape(-1, x.shape[-1])
        if len(rows):
            self.first.lerp_(rows.mean(0), self.rate)
            self.second.lerp_(rows.square().mean(0), self.rate)
            self.weight.lerp_(torch.ones_like(self.weight), self.rate)

    @property
    def mean(self) -> Float[Tensor, " size"]:
        """The mean of each entry; 0 before the first update."""
        return self.first / self.weight.clamp(min=torch.finfo(self.weight.dtype).tiny)

    @property
    def stddev(self) -> Float[Tensor, " size"]:
        """The standard deviation of each entry; 1 before the first update."""
        second = self.second / self.weight.clamp(min=torch.finfo(self.weight.dtype).tiny)
        found = (second - self.mean.square()).clamp(min=self.smallest**2).sqrt()
        return torch.where(self.weight > 0, found, torch.ones_like(found))
