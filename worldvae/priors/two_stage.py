"""The World Models recipe: a VAE of single frames, and dynamics that learn from its latents but do not train it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from worldvae.priors.prior import Prior
from worldvae.priors.standard import StandardPrior


class TwoStagePrior(Prior):
    """p(z | h) of `dynamics`, which does not regularise q: q is regularised by N(0, I) alone, as in a static VAE.

    Both stages train in parallel on the same batches, and no gradient flows from the dynamics to the VAE. The result is
    the same as if the VAE were trained first.

    Args:
        dynamics: the prior that is rolled forward.

    Reference: Ha & Schmidhuber 2018, "Recurrent World Models Facilitate Policy Evolution", section 2.
    """

    def __init__(self, dynamics: Prior) -> None:
        super().__init__(dynamics.latent_size)
        self.dynamics, self.static = dynamics, StandardPrior(dynamics.latent_size)
        self.kind, self.estimates_kl, self.corrupts = dynamics.kind, dynamics.estimates_kl, dynamics.corrupts

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> Distribution:
        """Return p(z | h)."""
        out: Distribution = self.dynamics(memory)
        return out

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the random numbers that `step` needs."""
        return self.dynamics.noise(shape, device, generator)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a sample of the dynamics."""
        return self.dynamics.step(memory, noise)

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the mode of the dynamics."""
        return self.dynamics.mode(memory)

    def history_noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape corruption"]:
        """Draw the random numbers that `corrupt` needs."""
        return self.dynamics.history_noise(shape, device, generator)

    def corrupt(
        self, latent: Float[Tensor, "*batch latent"], noise: Float[Tensor, "*batch corruption"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return what the memory reads of z in training."""
        return self.dynamics.corrupt(latent, noise)

    def recall(
        self, latent: Float[Tensor, "*batch latent"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return what the memory reads of the last z in a dream."""
        return self.dynamics.recall(latent, noise)

    def log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return log p(z | h) of the dynamics."""
        return self.dynamics.log_prob(latent, memory)

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return KL(q || p(z | h)), the term of the sequential ELBO."""
        return self.dynamics.kl(q, latent, memory)

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return KL(sg(q) || p(z | h)), which trains the dynamics, and KL(q || N(0, I)), which trains the VAE."""
        forward, _ = self.dynamics.balanced_kl(q, latent, memory)
        return forward, self.static.kl(q, latent, memory)
