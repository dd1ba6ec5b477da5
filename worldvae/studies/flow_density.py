"""A flow-matching prior, trained, by the density of its flow."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.priors import FlowMatchingPrior
from worldvae.priors.prior import Prior


class FlowDensity(Prior):
    """p(z | h) of a `FlowMatchingPrior` that is no bound: that of its probability flow, solved in strides.

    It costs two evaluations of the field and of its divergence per stride, where the bound costs one evaluation; but a
    mean of exp(log p(z)) makes sense of it. Samples are drawn in as many strides.

    Args:
        prior: the trained prior.
        steps: strides. On the digits 8 of them are within 0.01 nats of 64 on average, and within 0.05 in root mean
            square.

    Reference: Song et al. 2021, "Score-Based Generative Modeling through SDEs", section 4.3.
    """

    kind = "estimate"

    def __init__(self, prior: FlowMatchingPrior, steps: int = 8) -> None:
        super().__init__(prior.latent_size)
        self.prior, self.steps = prior, steps

    def log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return log p(z | h), exact but for the strides."""
        return self.prior.exact_log_prob(latent, memory, self.steps)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return where the flow carries the noise."""
        gaussian = self.prior.base(memory)
        u = self.prior.integrate(noise.float(), memory, self.steps, self.prior.solver)
        return torch.addcmul(gaussian.mean, gaussian.stddev, u)

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return where the flow carries the noise 0."""
        return self.step(memory, memory.new_zeros(*memory.shape[:-1], self.latent_size))
