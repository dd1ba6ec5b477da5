"""The terms of the evidence lower bound (ELBO) of a sequential VAE, and the loss computed from them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.types import TensorTree


@dataclass(frozen=True)
class ELBOConfig:
    """Weights of the terms of the ELBO in the loss.

    Attributes:
        free_nats: each KL below this many nats per step costs nothing.
        dynamics: weight of KL(sg(q) || p), which trains the prior.
        representation: weight of KL(q || sg(p)), which trains the posterior. If both are 1, the gradient is that of
            the ELBO (above the free nats); DreamerV3's 0.1 keeps more detail in z, but dreams do not predict it.
        decode_steps: average number of time steps per slice that are decoded, chosen at random (0: all); the estimate
            of the ELBO stays unbiased.
        reward: weight of the reward term.
        continuation: weight of the continuation term.
    """

    free_nats: float = 1.0
    dynamics: float = 1.0
    representation: float = 1.0
    decode_steps: int = 16
    reward: float = 1.0
    continuation: float = 1.0

    def __post_init__(self) -> None:
        for name in ("free_nats", "dynamics", "representation", "decode_steps", "reward", "continuation"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} cannot be negative")


@dataclass(frozen=True)
class Terms(TensorTree):
    """The terms of the ELBO, `[batch, time]`, in nats summed over event axes.

    `pixels` is 0 at steps that were not decoded and scaled up at the others, so that its mean is an unbiased estimate.
    The gradient of `kl_dynamics` reaches only the prior, that of `kl_representation` only the posterior; the two are
    equal in value, except in a model with two stages, where the latter is the KL to N(0, I). `ensemble` is the KL of
    the ensemble's heads and not part of the ELBO.
    """

    pixels: Float[Tensor, "batch time"] | None
    vector: Float[Tensor, "batch time"] | None
    reward: Float[Tensor, "batch time"]
    continuation: Float[Tensor, "batch time"]
    kl_dynamics: Float[Tensor, "batch time"]
    kl_representation: Float[Tensor, "batch time"]
    ensemble: Float[Tensor, "batch time"] | None = None

    @property
    def bound(self) -> Float[Tensor, "batch time"]:
        """The ELBO: log-likelihoods minus KL (kind: lower_bound)."""
        total = self.reward + self.continuation - self.kl_dynamics
        for term in (self.pixels, self.vector):
            if term is not None:
                total = total + term
        return total

    @torch.no_grad()
    def means(self) -> dict[str, Float[Tensor, ""]]:
        """Return means over batch and time for a log: the ELBO and each of its terms, in nats per row."""
        costs = {
            "bound": self.bound.mean(),
            "reward_nats": -self.reward.mean(),
            "continuation_nats": -self.continuation.mean(),
            "kl": self.kl_dynamics.mean(),
        }
        if self.pixels is not None:
            costs["pixel_nats"] = -self.pixels.mean()
        if self.vector is not None:
            costs["vector_nats"] = -self.vector.mean()
        return costs


def elbo_loss(terms: Terms, config: ELBOConfig, estimated: bool = False) -> Float[Tensor, ""]:
    """Return the negative ELBO with free nats and KL balance, averaged over batch and time.

    loss = -log p(x) - w_r log p(r) - w_c log p(c)
           + dynamics max(KL(sg q || p), free) + representation max(KL(q || sg p), free) [+ the ensemble's KL]

    Args:
        terms: the terms of the ELBO.
        config: their weights.
        estimated: whether the KLs are estimates from one sample each (`SequentialVAE.kl_is_estimated`). Then their
            mean is compared with the free nats: the maximum of a noisy number and a constant is larger on average
            than the maximum of their means.

    Reference: Hafner et al. 2023, "Mastering Diverse Domains through World Models", equations 4 and 5.
    """
    likelihood = config.reward * terms.reward + config.continuation * terms.continuation
    for term in (terms.pixels, terms.vector):
        if term is not None:
            likelihood = likelihood + term
    dynamics = config.dynamics * _above(terms.kl_dynamics, config.free_nats, estimated)
    representation = config.representation * _above(terms.kl_representation, config.free_nats, estimated)
    loss = dynamics + representation - likelihood
    return (loss if terms.ensemble is None else loss + terms.ensemble).mean()


def _above(kl: Float[Tensor, "batch time"], free: float, estimated: bool) -> Float[Tensor, "batch time"]:
    if not estimated:
        return kl.clamp(min=free)
    return torch.where(kl.detach().mean() > free, kl, torch.full_like(kl, free))
