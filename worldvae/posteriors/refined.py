"""Refined posteriors: parameters of q that are improved for each example by gradient steps on its ELBO.

They measure the amortisation gap: the ELBO of the refined q minus that of the encoder's q.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.distributions import LatentFamily

COMPARISON_FACTOR = (
    8  # candidates are compared on 8 times the samples of a step: a step needs less accuracy than a choice
)

LogJoint = Callable[[Float[Tensor, "sample *batch latent"]], Float[Tensor, "sample *batch"]]
"""log p(x, z) with one fixed x per batch element, for several samples of z."""


@dataclass(frozen=True)
class Refined:
    """The result of refinement.

    Attributes:
        parameters: parameters of the chosen q.
        bound: its ELBO in nats, on the noise with which all candidates were compared; draw fresh noise to report it.
        first: the ELBO of the initial q on the same noise; never above `bound`.
        decoder_calls: number of latents decoded per example.
    """

    parameters: Float[Tensor, "*batch parameter"]
    bound: Float[Tensor, "*batch"]
    first: Float[Tensor, "*batch"]
    decoder_calls: int


def svi(
    log_joint: LogJoint,
    family: LatentFamily,
    like: Float[Tensor, "*batch parameter"],
    *,
    steps: int = 300,
    learning_rate: float = 0.1,
    samples: int = 4,
    checks: int = 10,
    generator: torch.Generator,
) -> Refined:
    """Return q fitted to each example from scratch: from parameters of zero.

    The step size falls linearly to zero, and `checks` candidates along the way are compared.

    Args:
        log_joint: log p(x, z).
        family: family of q; its samples must be reparameterised.
        like: a tensor with the shape, type and device of the parameters; its values are ignored.
        steps: number of gradient steps.
        learning_rate: Adam's initial step size.
        samples: samples of z per step.
        checks: number of candidates that are compared.
        generator: source of all noise; the order of draws does not depend on the results.

    Reference: Hoffman et al. 2013, "Stochastic Variational Inference"; Roeder et al. 2017, "Sticking the Landing".
    """
    every = max(1, steps // max(1, checks))
    zeros = torch.zeros_like(like)
    return _ascend(log_joint, family, zeros, steps, learning_rate, samples, every, generator, differentiable=False)


def semi_amortised(
    log_joint: LogJoint,
    family: LatentFamily,
    start: Float[Tensor, "*batch parameter"],
    *,
    steps: int = 10,
    learning_rate: float = 0.05,
    samples: int = 4,
    generator: torch.Generator,
    differentiable: bool = False,
) -> Refined:
    """Return q after `steps` gradient steps on the ELBO from the encoder's parameters `start`.

    The q after every step is a candidate; the result is the latest one that was not clearly worse than its
    predecessor. No candidate that was worse than `start` on the same noise is chosen; with few samples, that comparison
    is itself an estimate.

    Args:
        log_joint: log p(x, z).
        family: family of q; its samples must be reparameterised.
        start: the encoder's parameters.
        steps: number of gradient steps.
        learning_rate: Adam's initial step size; it falls linearly to zero.
        samples: samples of z per step.
        generator: source of all noise; the order of draws does not depend on the results.
        differentiable: keep the graph of the steps, so that the encoder can be trained through them.

    Reference: Kim et al. 2018, "Semi-Amortized Variational Autoencoders", algorithm 1 (they use plain gradient steps).
    """
    return _ascend(log_joint, family, start, steps, learning_rate, samples, 1, generator, differentiable)


def _ascend(
    log_joint: LogJoint,
    family: LatentFamily,
    start: Tensor,
    steps: int,
    learning_rate: float,
    samples: int,
    every: int,
    generator: torch.Generator,
    differentiable: bool,
) -> Refined:
    """Ascend with Adam, which scales every number separately: examples do not influence each other."""
    shape = (samples, *start.shape[:-1])
    judge = family.noise((COMPARISON_FACTOR * samples, *start.shape[:-1]), start.device, generator).to(start.dtype)
    parameters = start if differentiable else start.detach().requires_grad_()
    if differentiable and not parameters.requires_grad:
        raise ValueError("differentiable=True needs parameters that come from a graph: pass the encoder's own output")
    begun, calls = _log_weights(log_joint, family, parameters, judge), len(judge)
    chosen, weights = parameters, begun
    mean, square = torch.zeros_like(start), torch.zeros_like(start)
    for step in range(steps):
        noise = family.noise(shape, start.device, generator).to(start.dtype)
        gradient = _gradient(log_joint, family, parameters, noise, differentiable)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient.square()
        size = (square / (1 - 0.99 ** (step + 1)) + 1e-12).sqrt()  # inside the root, to have a gradient at 0
        rate = learning_rate * (1 - step / steps)
        parameters = parameters + rate * mean / (1 - 0.9 ** (step + 1)) / size
        if not differentiable:
            parameters = parameters.detach().requires_grad_()
        calls += samples
        if (step + 1) % every == 0 or step + 1 == steps:
            new = _log_weights(log_joint, family, parameters, judge)
            calls += len(judge)
            better = _not_worse(new, weights) & (new.mean(0) >= begun.mean(0))
            chosen = torch.where(better.unsqueeze(-1), parameters, chosen)
            weights = torch.where(better, new, weights)
    return Refined(chosen if differentiable else chosen.detach(), weights.mean(0), begun.mean(0), calls)


def _not_worse(new: Tensor, old: Tensor) -> Tensor:
    """Return whether the mean of `new` over samples is above that of `old`, or too close to tell.

    Later steps are smaller, so that a later q is the better guess. Near the optimum, few samples say less than that
    about which of two candidates is better: the log-weights of an exact q are all equal, and an inexact q may be lucky.
    """
    gain = new - old
    return gain.mean(0) + 3 * gain.std(0) / math.sqrt(len(gain)) > 0


def _gradient(
    log_joint: LogJoint, family: LatentFamily, parameters: Tensor, noise: Tensor, differentiable: bool
) -> Tensor:
    """Return the gradient of the ELBO along the path of z alone, which has no variance if q is exact.

    The other part, the gradient of log q with respect to its parameters, is 0 on average; but second derivatives need
    it.
    """
    with torch.enable_grad():
        expanded = parameters.expand(*noise.shape[:-1], parameters.shape[-1])
        latent = family.sample(expanded, noise)
        q = family(expanded if differentiable else expanded.detach())
        objective = (log_joint(latent) - q.log_prob(latent)).mean(0).sum()
        return torch.autograd.grad(objective, parameters, create_graph=differentiable)[0]


@torch.no_grad()
def _log_weights(log_joint: LogJoint, family: LatentFamily, parameters: Tensor, noise: Tensor) -> Tensor:
    """Return log p(x, z) - log q(z) for each sample and example; the mean over samples estimates the ELBO."""
    parameters = parameters.expand(*noise.shape[:-1], parameters.shape[-1])
    latent = family.sample(parameters, noise)
    weights: Tensor = log_joint(latent) - family(parameters).log_prob(latent)
    return weights
