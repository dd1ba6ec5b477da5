"""Priors in a distribution family whose parameters a perceptron predicts from the memory."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from worldvae.distributions import LatentFamily, detached, has_kl, kl
from worldvae.networks import PerceptronKind, perceptron
from worldvae.priors.prior import Prior, kl_or_estimate


class ParametricPrior(Prior):
    """p(z | h) = family(mlp(h)), for a Gaussian or a categorical family.

    Args:
        memory: length of h.
        family: distribution family of z, which fixes its length.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        kind: kind of the perceptron.
    """

    estimates_kl = False

    def __init__(
        self,
        memory: int,
        family: LatentFamily,
        hidden: int,
        layers: int = 1,
        kind: PerceptronKind = "normed",
    ) -> None:
        super().__init__(family.latent_size)
        self.family = family
        self.net = perceptron(memory, hidden, layers, family.parameter_size, kind=kind)

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return repr(self.family)

    def parameters_at(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch parameter"]:
        """Return the family's parameters."""
        out: Tensor = self.net(memory).float()
        return out

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> Distribution:
        """Return p(z | h)."""
        return self.family(self.parameters_at(memory))

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a reparameterised sample of z."""
        return self.family.sample(self.parameters_at(memory), noise)

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the most probable z."""
        return self.family.mode(self.parameters_at(memory))

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the random numbers that `step` needs."""
        return self.family.noise(shape, device, generator)

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return KL(q || p), in closed form if there is one."""
        return kl_or_estimate(q, self(memory), latent)

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return both KLs of `Prior.balanced_kl` from one pass through the network."""
        p = self(memory)
        if not has_kl(q, p):
            return super().balanced_kl(q, latent, memory)
        return kl(detached(q), p), kl(q, detached(p))
