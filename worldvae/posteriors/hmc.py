"""Hamiltonian Monte Carlo: samples from the exact posterior p(z | x), for many chains in parallel."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LogDensity = Callable[[Float[Tensor, "chain dim"]], Float[Tensor, " chain"]]
"""Returns log p(z) up to a constant, for every chain."""


@dataclass(frozen=True)
class Samples:
    """The result of `hmc`.

    Attributes:
        draws: z after every step that followed the warm-up.
        accept_rate: mean acceptance probability of those steps.
        step_size: result of the warm-up, one per chain.
    """

    draws: Float[Tensor, "draw chain dim"]
    accept_rate: Float[Tensor, " chain"]
    step_size: Float[Tensor, " chain"]


@dataclass(frozen=True)
class DualAveraging:
    """Step sizes that approach a target acceptance rate; each `update` returns the next state.

    log eps_{m+1} = mu - sqrt(m) / gamma * mean error; the result is an average that gives early steps less weight.

    Reference: Hoffman & Gelman 2014, "The No-U-Turn Sampler", section 3.2.1 (gamma 0.05, t0 10, kappa 0.75).
    """

    centre: Tensor
    log_step: Tensor
    error: Tensor
    averaged: Tensor
    count: int = 0

    @classmethod
    def begin(cls, step_size: Float[Tensor, " chain"]) -> "DualAveraging":
        """Return the state before the first step."""
        log_step = step_size.log()
        return cls(log_step + math.log(10), log_step, torch.zeros_like(log_step), torch.zeros_like(log_step))

    def update(self, accept: Float[Tensor, " chain"], target: float) -> "DualAveraging":
        """Return the state after a step with this acceptance probability."""
        count = self.count + 1
        error = self.error + (target - accept - self.error) / (count + 10)
        log_step = self.centre - math.sqrt(count) / 0.05 * error
        averaged = self.averaged + count**-0.75 * (log_step - self.averaged)
        return DualAveraging(self.centre, log_step, error, averaged, count)


def hmc(
    log_joint: LogDensity,
    start: Float[Tensor, "chain dim"],
    steps: int,
    leapfrog: int,
    warmup: int,
    generator: torch.Generator,
    *,
    step_size: float = 0.1,
    target: float = 0.8,
    shared: bool = False,
) -> Samples:
    """Draw from p(z) ~ exp log_joint(z) by Hamiltonian dynamics, with independent chains that begin at `start`.

    Chains may have different densities; each then adapts its own step size. Chains of the same density should share one
    (`shared`): acceptance rates averaged over chains are less noisy and come closer to the target (a single chain ends
    with a smaller step). Step sizes vary randomly by up to a fifth, so that no trajectory stays periodic.

    Args:
        log_joint: log-density up to a constant, differentiable.
        start: initial z of each chain.
        steps: number of draws that are returned.
        leapfrog: gradient evaluations per draw.
        warmup: earlier draws, which adapt the step size and are discarded.
        generator: source of all randomness.
        step_size: initial step size.
        target: target acceptance rate of the warm-up.
        shared: whether all chains share one step size.

    Raises:
        ValueError: If the density at a start is zero or not a number, or a number of steps is too small.

    Reference: Neal 2011, "MCMC using Hamiltonian dynamics", section 5.3.2; Hoffman & Gelman 2014, algorithm 5.
    """
    if min(steps, leapfrog) < 1 or warmup < 0:
        raise ValueError(f"steps={steps} and leapfrog={leapfrog} must be at least 1, and warmup={warmup} at least 0")
    position = start.detach()
    value, slope = _value_and_slope(log_joint, position)
    if not bool(torch.isfinite(value).all()):
        raise ValueError("hmc: a chain begins where log_joint is not finite; start all chains inside the support")
    epsilon = torch.full_like(value, step_size)
    adaptation, draws, accepts = DualAveraging.begin(epsilon), [], []
    for step in range(warmup + steps):
        momentum, jitter, chance = _randomness(position, generator)
        proposal, end, new_value, new_slope = leapfrog_steps(
            log_joint, position, momentum, slope, epsilon * jitter, leapfrog
        )
        energy = new_value - value - (end.square() - momentum.square()).sum(-1) / 2
        accept = energy.nan_to_num(nan=-torch.inf, posinf=-torch.inf).clamp(max=0).exp()  # rejects paths that diverged
        taken = chance < accept
        position = torch.where(taken.unsqueeze(-1), proposal, position)
        slope = torch.where(taken.unsqueeze(-1), new_slope, slope)
        value = torch.where(taken, new_value, value)
        if step < warmup:
            adaptation = adaptation.update(accept.mean().expand_as(accept) if shared else accept, target)
            epsilon = (adaptation.averaged if step + 1 == warmup else adaptation.log_step).exp()
        else:
            draws.append(position)
            accepts.append(accept)
    return Samples(torch.stack(draws), torch.stack(accepts).mean(0), epsilon)


def leapfrog_steps(
    log_joint: LogDensity,
    position: Float[Tensor, "chain dim"],
    momentum: Float[Tensor, "chain dim"],
    slope: Float[Tensor, "chain dim"],
    step_size: Float[Tensor, " chain"],
    steps: int,
) -> tuple[Float[Tensor, "chain dim"], Float[Tensor, "chain dim"], Float[Tensor, " chain"], Float[Tensor, "chain dim"]]:
    """Follow the dynamics for `steps` steps; `slope` is the gradient at `position`.

    Returns:
        Position, momentum, log-density and its gradient at the end. The map is reversible, and its energy error is of
        second order in the step size.
    """
    epsilon = step_size.unsqueeze(-1)
    momentum = momentum + epsilon / 2 * slope
    value = step_size  # only for the type: there is at least one step
    for step in range(steps):
        position = position + epsilon * momentum
        value, slope = _value_and_slope(log_joint, position)
        momentum = momentum + (epsilon if step + 1 < steps else epsilon / 2) * slope
    return position, momentum, value, slope


def _value_and_slope(log_joint: LogDensity, position: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        position = position.detach().requires_grad_()
        value = log_joint(position)
        return value.detach(), torch.autograd.grad(value.sum(), position)[0]


def _randomness(position: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw the momentum, the factor of the step size, and the uniform number that decides about acceptance."""
    momentum = torch.randn(position.shape, dtype=position.dtype, device=position.device, generator=generator)
    uniform = torch.rand(2, len(position), dtype=position.dtype, device=position.device, generator=generator)
    return momentum, 0.8 + 0.4 * uniform[0], uniform[1]
