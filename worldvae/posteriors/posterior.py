"""The base class of posteriors: q(z | h, e), from which z is inferred in one pass."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution


class Posterior(nn.Module):
    """q(z | h, e): the distribution of z given the frame whose embedding is e.

    Args:
        latent: length of z.

    Attributes:
        estimates_kl: whether the KL of q to any prior has no closed form and is estimated.
    """

    estimates_kl = False

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent_size = latent

    def project(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch hidden"]:
        """Return the part of q that does not depend on the memory, for all time steps at once."""
        raise NotImplementedError

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the random numbers that `infer` needs, for any leading shape: standard normal by default."""
        return torch.randn(*shape, self.latent_size, device=device, generator=generator)

    def infer(
        self,
        memory: Float[Tensor, "*batch memory"],
        projected: Float[Tensor, "*batch hidden"],
        noise: Float[Tensor, "*batch noise"] | None,
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch parameter"]]:
        """Return a reparameterised sample of z (without noise: the mode), and the parameters for `distribution`."""
        raise NotImplementedError

    def distribution(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return q, with one event axis, for parameters of any leading shape."""
        raise NotImplementedError

    def sample(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a reparameterised sample of the q with these parameters."""
        raise NotImplementedError

    def sample_and_log_prob(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch"]]:
        """Return a sample of q and its log-density, which a flow computes in one pass."""
        latent = self.sample(parameters, noise)
        log_prob: Tensor = self.distribution(parameters).log_prob(latent)
        return latent, log_prob
