"""A trained flow-matching prior with the density of its flow."""

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.priors import FlowMatchingPrior
from worldvae.priors.prior import Prior


class FlowDensity(Prior):
    """p(z | h) of a `FlowMatchingPrior` by its probability flow, which is not a bound.

    The flow is solved in steps. It costs two evaluations of the field and of its divergence per step, where the bound
    costs one evaluation; but a mean of exp(log p(z)) is meaningful. Samples take as many steps.

    Args:
        prior: the trained prior.
        steps: number of solver steps. On the digits 8 steps are within 0.01 nats of 64 steps on average, and within
            0.05 in root mean square.
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
        """Return log p(z | h), exact up to the solver's discretisation error."""
        return self.prior.exact_log_prob(latent, memory, self.steps)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return the end of the flow that starts at the noise."""
        gaussian = self.prior.base(memory)
        u = self.prior.integrate(noise.float(), memory, self.steps, self.prior.solver)
        return torch.addcmul(gaussian.mean, gaussian.stddev, u)

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the end of the flow that starts at the noise 0."""
        return self.step(memory, memory.new_zeros(*memory.shape[:-1], self.latent_size))
