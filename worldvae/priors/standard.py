"""The standard normal prior."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from worldvae.priors.prior import Prior, kl_or_estimate


class StandardPrior(Prior):
    """p(z | h) = N(0, I), independent of the memory.

    Reference: Kingma & Welling 2014, "Auto-Encoding Variational Bayes", appendix B.
    """

    estimates_kl = False

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> Distribution:
        """Return N(0, I) for every element of the batch."""
        zeros = memory.new_zeros(*memory.shape[:-1], self.latent_size)
        return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return the noise itself."""
        return noise

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return 0."""
        return memory.new_zeros(*memory.shape[:-1], self.latent_size)

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return KL(q || N(0, I)), in closed form if there is one."""
        return kl_or_estimate(q, self(memory), latent)

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return the KL twice; the first has no gradient, because this prior has no parameters."""
        representation = self.kl(q, latent, memory)
        return representation.detach(), representation
