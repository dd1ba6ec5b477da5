"""What every posterior is: q(z | h, e), from which z is inferred in one pass."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution


class Posterior(nn.Module):
    """q(z | h, e): what z may be once the frame behind the embedding e was seen.

    Args:
        latent: length of z.

    Attributes:
        estimates_kl: whether its KL has no closed form against any prior.
    """

    estimates_kl = False

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent_size = latent

    def project(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch hidden"]:
        """Return what of q does not wait for the memory, for all time steps at once."""
        raise NotImplementedError

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the randomness of `infer` for any leading shape: standard normal, unless a posterior says otherwise."""
        return torch.randn(*shape, self.latent_size, device=device, generator=generator)

    def infer(
        self,
        memory: Float[Tensor, "*batch memory"],
        projected: Float[Tensor, "*batch hidden"],
        noise: Float[Tensor, "*batch noise"] | None,
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch parameter"]]:
        """Return a reparameterised sample of z (its mode without noise), and what `distribution` needs to rebuild q."""
        raise NotImplementedError

    def distribution(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return q, with one event axis, for parameters of any leading shape."""
        raise NotImplementedError

    def sample(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a reparameterised sample of the q that has these parameters."""
        raise NotImplementedError

    def sample_and_log_prob(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch"]]:
        """Return a sample of q and log q of it, which a flow has in one pass."""
        latent = self.sample(parameters, noise)
        log_prob: Tensor = self.distribution(parameters).log_prob(latent)
        return latent, log_prob
