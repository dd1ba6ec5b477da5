"""Importance-weighted bounds, and gradient estimators for them with low variance."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution

from worldvae.distributions import detached
from worldvae.types import Kind

LogJoint = Callable[[Tensor], Tensor]
"""log p(x, z) for samples `[sample, *batch, latent]`: `[sample, *batch]`."""

Proposal = Callable[[int, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]
"""(t, z_{t-1}, generator) -> reparameterised z_t `[batch, sample, latent]` and log q(z_t) `[batch, sample]`."""

Transition = Callable[[int, Tensor, Tensor], Tensor]
"""(t, z_{t-1}, z_t) -> log p(z_t | z_{t-1}), `[batch, sample]`."""

Emission = Callable[[int, Tensor], Tensor]
"""(t, z_t) -> log p(x_t | z_t), `[batch, sample]`."""


def iwae(log_weights: Float[Tensor, "..."], dim: int = 0) -> Float[Tensor, "..."]:
    """Return log mean_k w_k over axis `dim`, for log w_k = log p(x, z_k) - log q(z_k) (kind: lower_bound).

    With one sample it is the ELBO; the bound rises with the number of samples, towards log p(x).

    Reference: Burda et al. 2016, "Importance Weighted Autoencoders", equation 8.
    """
    return torch.logsumexp(log_weights, dim) - math.log(log_weights.shape[dim])


def stl(log_joint: LogJoint, q: Distribution, latent: Float[Tensor, "sample *batch latent"]) -> Float[Tensor, "*batch"]:
    """Return the ELBO to be maximised, without the score of q in its gradient ("sticking the landing").

    mean_k log p(x, z_k) - log sg(q)(z_k): the gradient reaches q through the samples alone. The omitted part has mean
    zero, so that the gradient stays unbiased; and if q is the exact posterior, the gradient of every sample is zero.

    Args:
        log_joint: log p(x, z), whose own parameters get their gradient, too.
        q: a product of Normals.
        latent: reparameterised samples of q.

    Reference: Roeder et al. 2017, "Sticking the Landing", section 3.
    """
    return (log_joint(latent) - detached(q).log_prob(latent)).mean(dim=0)


def dreg(
    log_joint: LogJoint, q: Distribution, latent: Float[Tensor, "sample *batch latent"]
) -> Float[Tensor, "*batch"]:
    """Return the bound `iwae` to be maximised, with doubly reparameterised gradients.

    With v_k = w_k / sum w: the parameters of q get sum_k v_k^2 dlog w_k/dz_k dz_k, those of log p(x, z) get
    sum_k v_k dlog p(x, z_k). Both are unbiased for `iwae`; as k grows, the signal-to-noise ratio of the usual gradient
    of q falls, and that of this one rises.

    Args:
        log_joint: log p(x, z), whose own parameters get their gradient, too.
        q: a product of Normals.
        latent: reparameterised samples of q, which must depend on q alone (its parameters may depend on anything).

    Reference: Tucker et al. 2019, "Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives", equation 8.
    """
    # A copy in the graph: the hook below must not scale the gradients of other uses of these samples.
    branch = latent.clone()
    log_weights = log_joint(branch) - detached(q).log_prob(branch)
    shares = torch.softmax(log_weights, dim=0).detach()
    if branch.requires_grad:
        branch.register_hook(lambda gradient: gradient * shares.unsqueeze(-1))  # the second factor v_k
    surrogate = (shares * log_weights).sum(dim=0)
    return iwae(log_weights).detach() + (surrogate - surrogate.detach())


@dataclass(frozen=True)
class Filtering:
    """The result of a particle filter: an estimate of log p(x).

    Attributes:
        increments: estimates of log p(x_t | x_{1:t-1}) in nats, whose sum is the bound.
        effective: effective sample size after each row, before resampling: 1 .. number of particles.
    """

    kind: ClassVar[Kind] = "lower_bound"
    increments: Float[Tensor, "batch time"]
    effective: Float[Tensor, "batch time"]

    @property
    def bound(self) -> Float[Tensor, " batch"]:
        """The estimate log Z, whose mean over draws is below log p(x)."""
        return self.increments.sum(dim=1)


def fivo(
    proposal: Proposal,
    transition: Transition,
    emission: Emission,
    start: Float[Tensor, "batch sample latent"],
    length: int,
    generator: torch.Generator | None,
    threshold: float = 0.5,
) -> Filtering:
    """Return the filtering variational objective: the log of a particle filter's unbiased estimate of p(x).

    At each row the particles move to z_t ~ q, their weights are multiplied by
    a_t = p(x_t | z_t) p(z_t | z_{t-1}) / q(z_t), and log Z grows by log sum_k W_k a_t,k, where W are the normalised
    weights before the row. If the effective sample size 1 / sum W^2 falls below `threshold` times the number of
    particles, they are resampled in proportion to their weights (systematically).

    The result is to be maximised: gradients pass through samples and weights; the score of the resampling is omitted,
    as in the paper, which makes the gradients biased but usable.

    Args:
        proposal: q(z_t | z_{t-1}, data).
        transition: p(z_t | z_{t-1}).
        emission: p(x_t | z_t).
        start: value of z_{t-1} in the first row; its shape determines the number of particles.
        length: number of rows.
        generator: source of the samples and of the resampling.
        threshold: 0 never resamples (then the bound is `iwae`), above 1 always does.

    Reference: Maddison et al. 2017, "Filtering Variational Objectives", algorithm 1.
    """
    number = start.shape[1]
    latent, weights = start, start.new_full(start.shape[:2], -math.log(number))
    increments, effective = [], []
    for t in range(length):
        moved, log_q = proposal(t, latent, generator)
        joint = weights + emission(t, moved) + transition(t, latent, moved) - log_q
        increment = torch.logsumexp(joint, dim=1)
        weights, latent = joint - increment.unsqueeze(1), moved
        size = torch.exp(-torch.logsumexp(2 * weights.detach(), dim=1))
        increments.append(increment)
        effective.append(size)
        again = size < threshold * number
        if t + 1 < length and bool(again.any()):
            chosen = systematic(weights.detach().exp(), generator)
            stay = torch.arange(number, device=start.device).expand_as(chosen)
            chosen = torch.where(again.unsqueeze(1), chosen, stay)
            latent = latent.gather(1, chosen.unsqueeze(-1).expand_as(latent))
            weights = torch.where(again.unsqueeze(1), weights.new_full((), -math.log(number)), weights)
    return Filtering(torch.stack(increments, dim=1), torch.stack(effective, dim=1))


def systematic(
    weights: Float[Tensor, "batch sample"], generator: torch.Generator | None
) -> Int[Tensor, "batch sample"]:
    """Return the indices of resampled particles, each about `sample` times its weight, from one random number per row.

    Reference: Kitagawa 1996, "Monte Carlo Filter and Smoother for Non-Gaussian Nonlinear State Space Models", appendix.
    """
    size, number = weights.shape
    offset = torch.rand(size, 1, dtype=weights.dtype, device=weights.device, generator=generator)
    above = weights.cumsum(dim=1)
    points = (torch.arange(number, dtype=weights.dtype, device=weights.device) + offset) / number
    # Divide by their own sum, which rounding makes differ from 1: no point may lie beyond the last particle.
    return torch.searchsorted(above, points * above[:, -1:], right=True).clamp(max=number - 1)
