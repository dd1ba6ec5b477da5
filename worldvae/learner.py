"""One optimiser step at a time: gradient clipping, warm-up, and the update of the world model."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worldvae.networks import by_haste
from worldvae.objectives import ELBOConfig, Terms, elbo, elbo_loss
from worldvae.types import Batch, State
from worldvae.world_model import WorldModel


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam with clipping by global norm, a linear warm-up and a linear decay.

    Attributes:
        learning_rate: step size after the warm-up.
        final: share of it that is left at the end of the run (1: no decay). It falls from the run's first step on,
            the prefill included.
        warmup: updates until the full step size.
        clip: largest global gradient norm.
        eps: Adam's epsilon.
    """

    learning_rate: float = 6e-4
    final: float = 1.0
    warmup: int = 50
    clip: float = 100.0
    eps: float = 1e-7

    def __post_init__(self) -> None:
        for name in ("learning_rate", "clip", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")
        if not 0 <= self.final <= 1:
            raise ValueError(f"final={self.final} is not a share of the learning rate: take a number from 0 to 1")
        if self.warmup < 0:
            raise ValueError(f"warmup={self.warmup} cannot be negative")


class Optimiser:
    """Adam over the parameters of a module, with the warm-up, the decay and the clipping of its config.

    Parameters that were hastened (`networks.hasten`) learn with so many times the step size.

    Attributes:
        updates: steps taken.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: OptimiserConfig) -> None:
        self.parameters = list(parameters)
        self.config = config
        self.updates = 0
        groups = by_haste(self.parameters)
        self._hastes = list(groups)
        parts = [{"params": group} for group in groups.values()]
        self.adam = torch.optim.Adam(parts, lr=config.learning_rate, eps=config.eps, fused=True)

    def __repr__(self) -> str:
        return f"Optimiser({self.config}, updates={self.updates})"

    def step(self, loss: Tensor, progress: float = 0.0) -> Tensor:
        """Take one step down the gradient of `loss`; return the gradient's norm before clipping.

        Args:
            loss: a scalar.
            progress: share of the run that is done, 0..1, for the decay.
        """
        self.adam.zero_grad(set_to_none=True)
        grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad if grad is None else _laid_out_as(parameter, grad)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.updates += 1
        for group, haste in zip(self.adam.param_groups, self._hastes, strict=True):
            group["lr"] = haste * self.learning_rate(progress)
        self.adam.step()
        return norm

    def learning_rate(self, progress: float) -> float:
        """Return the step size after the updates so far, at this share of the run."""
        warm = min(1.0, self.updates / max(1, self.config.warmup))
        left = 1.0 - (1.0 - self.config.final) * min(1.0, progress)
        return self.config.learning_rate * warm * left

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on exactly."""
        return {"adam": self.adam.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.adam.load_state_dict(state["adam"])
        self.updates = state["updates"]
        for parameter, moments in self.adam.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # a checkpoint keeps no memory layout
                moments[name] = _laid_out_as(parameter, moments[name])


def _laid_out_as(parameter: Tensor, other: Tensor) -> Tensor:
    """Return `other` with its numbers in the order in memory in which those of the parameter lie.

    The fused step of Adam walks parameter, gradient and moments as they lie in memory: what lies otherwise than its
    (channels-last) parameter is mixed up, silently.
    """
    return other if other.stride() == parameter.stride() else torch.empty_like(parameter).copy_(other)


class Learner:
    """Fits a world model to batches of experience.

    Args:
        model: the world model.
        objective: weights of the bound's terms.
        optimiser: numbers of the optimiser.
    """

    def __init__(self, model: WorldModel, objective: ELBOConfig, optimiser: OptimiserConfig) -> None:
        self.model, self.objective = model, objective
        self.optimiser = Optimiser(model.parameters(), optimiser)

    def update(
        self, batch: Batch, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> tuple[State, dict[str, Tensor]]:
        """Take one step on a batch, with the step size for this share (0..1) of the run.

        Returns:
            The posterior states of the batch (detached), from which a policy may learn in imagination, and metrics:
            each term of the bound per row in nats, the loss and the gradient's norm.
        """
        observed = self.model.observe(batch, generator=generator)
        terms = elbo(self.model, batch, observed, self.objective.decode_steps, generator)
        loss = elbo_loss(terms, self.objective, self.model.kl_is_estimated)
        norm = self.optimiser.step(loss, progress)
        return observed.posterior.detach(), self._metrics(terms, loss, norm)

    @staticmethod
    @torch.no_grad()
    def _metrics(terms: Terms, loss: Tensor, norm: Tensor) -> dict[str, Tensor]:
        metrics = {
            "model/loss": loss.detach(),
            "model/bound": terms.bound.mean(),
            "model/reward_nats": -terms.reward.mean(),
            "model/continuation_nats": -terms.continuation.mean(),
            "model/kl": terms.kl_dynamics.mean(),
            "model/grad_norm": norm,
        }
        if terms.pixels is not None:
            metrics["model/pixel_nats"] = -terms.pixels.mean()
        if terms.vector is not None:
            metrics["model/vector_nats"] = -terms.vector.mean()
        return metrics
