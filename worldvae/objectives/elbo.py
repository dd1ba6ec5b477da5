"""The evidence lower bound of a sequential VAE, and the loss that is made from it."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.models.sequential_vae import Observed, WorldModel
from worldvae.types import Batch, Observation, State, TensorTree


@dataclass(frozen=True)
class ELBOConfig:
    """How the terms of the bound are weighed in the loss.

    Attributes:
        free_nats: each KL below this many nats per step costs nothing.
        dynamics: weight of KL(sg(q) || p), which trains the prior.
        representation: weight of KL(q || sg(p)), which trains the posterior. With both at 1 the gradient is
            that of the bound (beyond the free nats); DreamerV3's 0.1 keeps more detail in z, but no dream foresees it.
        decode_steps: how many time steps of each slice are decoded on average, drawn at random (0: all); the estimate
            of the bound stays unbiased.
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
    """The terms of the bound, `[batch, time]`, in nats summed over event axes.

    `pixels` and `vector` are zero at steps that were not decoded and scaled up at those that were, so that their mean
    is an unbiased estimate. The gradient of `kl_dynamics` reaches the prior only, that of `kl_representation` the
    posterior only; the two are equal in value, but in a model of two stages, where the latter is against N(0, I).
    `ensemble` is the KL of the ensemble's heads, and no part of the bound.
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
        """The bound itself: log-likelihoods minus KL (kind: lower_bound)."""
        total = self.reward + self.continuation - self.kl_dynamics
        for term in (self.pixels, self.vector):
            if term is not None:
                total = total + term
        return total


def elbo(
    model: WorldModel,
    batch: Batch,
    observed: Observed,
    decode_steps: int = 0,
    generator: torch.Generator | None = None,
) -> Terms:
    """Return the terms of E_q[log p(x, r, c | h, z)] - KL(q || p) for every row.

    Args:
        model: the world model.
        batch: the rows that were observed.
        observed: `model.observe(batch)`.
        decode_steps: frames decoded per slice on average (0: all).
        generator: picks the frames.
    """
    states = State(observed.posterior.memory, observed.posterior.latent)  # what no head reads is not copied about
    q = model.posterior.distribution(observed.parameters)
    dynamics, representation = model.prior.balanced_kl(q, states.latent, states.memory)
    pixels = vector = None
    if batch.observation.pixels is not None:
        pixels = _pixel_nats(model, batch.observation.pixels, states, decode_steps, generator)
    if batch.observation.vector is not None:
        vector = model.log_likelihood(states, Observation(vector=batch.observation.vector))["vector"]
    if model.two_stage:  # nor do reward and continuation shape the latents
        states = State(states.memory, states.latent.detach())
    return Terms(
        pixels,
        vector,
        reward=model.reward(states).log_prob(batch.reward),
        continuation=model.continuation(states).log_prob((~batch.termination).float()),
        kl_dynamics=dynamics,
        kl_representation=representation,
        ensemble=None if model.ensemble is None else model.ensemble.kl(q, states.latent, states.memory),
    )


def _pixel_nats(
    model: WorldModel,
    frames: Tensor,
    states: State,
    decode_steps: int,
    generator: torch.Generator | None,
) -> Float[Tensor, "batch time"]:
    """Return log p(x | h, z) of frames: of all, or at a random choice of rows scaled up, zero at the others."""
    size, length = frames.shape[:2]
    if not 0 < decode_steps < length:
        return model.log_likelihood(states, Observation(frames))["pixels"]
    picked = torch.randperm(size * length, generator=generator, device=frames.device)[: size * decode_steps]
    found = model.log_likelihood(states.flatten()[picked], Observation(frames.flatten(0, 1)[picked]))["pixels"]
    scattered = found.new_zeros(size * length).index_put((picked,), found * (length / decode_steps))
    return scattered.view(size, length)


def elbo_loss(terms: Terms, config: ELBOConfig, estimated: bool = False) -> Float[Tensor, ""]:
    """Return the negative bound with free nats and KL balance, averaged over batch and time.

    loss = -log p(x) - w_r log p(r) - w_c log p(c)
           + dynamics max(KL(sg q || p), free) + representation max(KL(q || sg p), free) [+ the ensemble's own KL]

    Args:
        terms: of the bound.
        config: their weights.
        estimated: whether the KLs are estimates from one sample each (`WorldModel.kl_is_estimated`). Then it is their
            mean that is compared with the free nats: the larger of noise and a number is on average larger than both.

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
