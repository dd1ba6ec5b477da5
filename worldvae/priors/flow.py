"""A flexible prior with an exact density: a normalising flow."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from zuko.flows import NSF

from worldvae.priors.prior import Prior


@dataclass(frozen=True)
class FlowConfig:
    """Settings of the prior `flow` and of the posterior `flow`.

    Attributes:
        transforms: number of coupling layers.
    """

    transforms: int = 3

    def __post_init__(self) -> None:
        if self.transforms < 1:
            raise ValueError(f"transforms={self.transforms}: a flow needs at least 1 transform")


class FlowPrior(Prior):
    """p(z | h) = N(f(z; h); 0, I) |det df/dz|, where f is a neural spline flow of coupling layers conditioned on h.

    Splines act on [-5, 5] in each dimension and are the identity outside. Each layer transforms one half of z given the
    other half (for length 1: given h alone), so that a sample costs two passes per layer. Initially the flow is the
    identity, and p is N(0, I).

    Args:
        memory: length of h.
        latent: length of z.
        hidden: width of the two hidden layers of each transform.
        transforms: number of coupling layers; each of them transforms both halves.

    Raises:
        ValueError: If there is no transform.

    Reference: Durkan et al. 2019, "Neural Spline Flows"; Rezende & Mohamed 2015 for flows in VAEs.
    """

    def __init__(self, memory: int, latent: int, hidden: int, transforms: int) -> None:
        super().__init__(latent)
        if transforms < 1:
            raise ValueError(f"transforms={transforms}: a flow needs at least 1 transform; StandardPrior has none")
        sizes = {"hidden_features": (hidden, hidden), "activation": nn.SiLU} if latent > 1 or memory else {}
        self.flow = NSF(latent, context=memory, transforms=transforms, passes=2, **sizes)
        for transform in self.flow.transform.transforms:
            # Without a memory, one dimension is a spline of free parameters; otherwise a perceptron predicts them.
            last = transform.hyper[-1].parameters() if hasattr(transform, "hyper") else transform.parameters()
            for parameter in last:
                nn.init.zeros_(parameter)

    def _at(self, memory: Tensor) -> Any:
        context = memory.float() if memory.shape[-1] else None
        return self.flow(context)  # zuko is not typed: a distribution with its `transform`

    def _sample(self, memory: Tensor, noise: Tensor) -> Tensor:
        with torch.autocast(memory.device.type, enabled=False):  # the roots of the splines need float32
            out: Tensor = self._at(memory).transform.inv(noise.float())
        return out

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return the sample that the flow maps to this noise."""
        return self._sample(memory, noise)

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the sample for the noise 0 (the median in one dimension, in general not the mode)."""
        return self._sample(memory, memory.new_zeros(*memory.shape[:-1], self.latent_size))

    def log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return log p(z | h)."""
        with torch.autocast(memory.device.type, enabled=False):
            out: Tensor = self._at(memory).log_prob(latent.float())
        return out
