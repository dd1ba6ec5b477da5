"""The base class of priors: p(z | h), which is sampled and compared with a posterior."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.distributions import has_kl, kl
from worldvae.networks.frozen import frozen
from worldvae.types import Kind


class Prior(nn.Module):
    """p(z | h): the distribution of z before an observation.

    Conditioned on the memory of a world model it is the transition from which dreams are sampled; with a memory of
    length 0 it is the prior p(z) of a static VAE. Every prior of the VAE literature is therefore a latent dynamics
    model, too.

    Args:
        latent: length of z.

    Attributes:
        kind: what number `log_prob` returns: "exact", a "lower_bound", an "estimate", or "unnormalised" (exact up to a
            constant that depends on h alone).
        estimates_kl: whether `kl` is an estimate even for posteriors that have closed forms with other priors.
        corrupts: whether the memory reads each z with noise: by `corrupt` in training, and by `recall` in dreams.
    """

    kind: Kind = "exact"
    estimates_kl = True
    corrupts = False

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent_size = latent

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the random numbers that `step` needs, for any leading shape: standard normal by default."""
        return torch.randn(*shape, self.latent_size, device=device, generator=generator)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Turn noise into a sample of z; gradients pass through it where possible."""
        raise NotImplementedError

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return a typical z without randomness: the mode if it is known."""
        raise NotImplementedError

    def history_noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape corruption"]:
        """Draw the random numbers that `corrupt` needs, for any leading shape; if the prior `corrupts`."""
        raise NotImplementedError

    def corrupt(
        self, latent: Float[Tensor, "*batch latent"], noise: Float[Tensor, "*batch corruption"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return what the memory reads of z in training, given a draw of `history_noise`; if the prior `corrupts`."""
        raise NotImplementedError

    def recall(
        self, latent: Float[Tensor, "*batch latent"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return what the memory reads of the last z in a dream, given the noise of `step`; if the prior `corrupts`."""
        raise NotImplementedError

    def log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return log p(z | h) in nats, of kind `kind`; by default that of the distribution `self(memory)`."""
        out: Tensor = self(memory).log_prob(latent)
        return out

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return KL(q || p) in nats, or its estimate log q(z) - log p(z | h) at the sample `latent` of q."""
        return q.log_prob(latent) - self.log_prob(latent, memory)

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return KL(sg(q) || p), whose gradient reaches only the prior, and KL(q || sg(p)), equal in value."""
        with torch.no_grad():
            entropy = q.log_prob(latent)
        dynamics = entropy - self.log_prob(latent.detach(), memory)
        with frozen(self.learnt()):
            representation = self.kl(q, latent, memory.detach())
        return dynamics, representation

    def learnt(self) -> Iterable[nn.Parameter]:
        """Return every parameter that p(z | h) depends on, including those of other modules."""
        return self.parameters()


def kl_or_estimate(q: Distribution, p: Distribution, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch"]:
    """Return KL(q || p): in closed form if there is one, else estimated at the sample `latent` of q."""
    return kl(q, p) if has_kl(q, p) else q.log_prob(latent) - p.log_prob(latent)
