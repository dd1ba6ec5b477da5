"""Adam with warm-up, decay and gradient clipping, which skips updates whose gradient is not finite."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worldvae.errors import Diverged
from worldvae.networks.lr_scale import by_lr_scale

PATIENCE = 5
"""Number of consecutive updates without finite numbers after which training counts as diverged."""


@dataclass(frozen=True)
class OptimiserConfig:
    """Adam with clipping by global norm, a linear warm-up and a linear decay.

    Attributes:
        learning_rate: step size after the warm-up.
        final: step size at the end of the run as a share of `learning_rate` (1: no decay). It falls from the run's
            first step on, the prefill included.
        warmup: updates until the full step size, at the beginning and after a run was made longer.
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


@dataclass(frozen=True)
class Rise:
    """The start of a warm-up: at update number `since`, from the step size `rate`."""

    since: int = 0
    rate: float = 0.0


def risen_again(state: dict[str, Any]) -> dict[str, Any]:
    """Return the state of an optimiser that warms up again, from its last step size to that of a new schedule.

    Without this the step size would jump to that of a longer schedule: up to ten times the one at which Adam's
    running averages were made.

    Args:
        state: result of `Optimiser.state_dict`.
    """
    return state | {"rise": {"since": state["updates"], "rate": state["rate"]}}


class Optimiser:
    """Adam over the parameters of a module, with the warm-up, the decay and the clipping of its config.

    Parameters passed to `networks.scale_learning_rate` have a multiple of the step size. If the gradient is not finite,
    no step is taken: a single NaN would ruin every weight for good.

    Args:
        parameters: the parameters to optimise.
        config: numbers of the optimiser.
        name: section of the run's settings that holds the config, for error messages.

    Attributes:
        updates: number of steps taken.
        skipped: number of steps skipped because the gradient was not finite.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], config: OptimiserConfig, name: str = "optimiser") -> None:
        self.parameters = list(parameters)
        self.config, self.name = config, name
        self.updates = self.skipped = 0
        self._in_a_row = 0
        self._rate, self._rise = 0.0, Rise()
        groups = by_lr_scale(self.parameters)
        self._lr_scales = list(groups)
        parts = [{"params": group} for group in groups.values()]
        self.adam = torch.optim.Adam(parts, lr=config.learning_rate, eps=config.eps, fused=True)

    def __repr__(self) -> str:
        return f"Optimiser({self.config}, updates={self.updates})"

    def step(self, loss: Tensor, progress: float = 0.0) -> Tensor:
        """Take one step down the gradient of `loss`; return the gradient's norm before clipping.

        Args:
            loss: a scalar.
            progress: finished share of the run, 0..1, for the decay.

        Raises:
            Diverged: If the gradient was not finite in `PATIENCE` consecutive updates.
        """
        self.adam.zero_grad(set_to_none=True)
        grads = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        for parameter, grad in zip(self.parameters, grads, strict=True):
            parameter.grad = grad if grad is None else _laid_out_as(parameter, grad)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        if not bool(torch.isfinite(norm)):
            self._skip()
            return norm
        self._in_a_row = 0
        self.updates += 1
        self._rate = self.learning_rate(progress)
        for group, scale in zip(self.adam.param_groups, self._lr_scales, strict=True):
            group["lr"] = scale * self._rate
        self.adam.step()
        return norm

    def _skip(self) -> None:
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= PATIENCE:
            raise Diverged(
                f"the loss or its gradient was not a finite number {self._in_a_row} times in a row, after "
                f"{self.updates} updates: take a smaller {self.name}.learning_rate (it is "
                f"{self.config.learning_rate:g}) or {self.name}.clip (it is {self.config.clip:g}), or look for rewards "
                "and observations of enormous size."
            )

    def learning_rate(self, progress: float) -> float:
        """Return the step size after the updates so far, at this share of the run.

        It falls linearly from `learning_rate` to `final * learning_rate` over the run. In the first `warmup` updates of
        the run it rises linearly from 0 to that schedule; after the run was made longer, from the last step size.
        """
        left = 1.0 - (1.0 - self.config.final) * min(1.0, progress)
        risen = min(1.0, (self.updates - self._rise.since) / max(1, self.config.warmup))
        return self._rise.rate + risen * (self.config.learning_rate * left - self._rise.rate)

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to continue exactly."""
        return {
            "adam": self.adam.state_dict(),
            "updates": self.updates,
            "skipped": self.skipped,
            "rate": self._rate,
            "rise": asdict(self._rise),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.adam.load_state_dict(state["adam"])
        for group in self.adam.param_groups:
            group["eps"] = self.config.eps  # Adam restores the eps of the checkpoint
        self.updates, self.skipped = state["updates"], state["skipped"]
        self._rate, self._rise = state["rate"], Rise(**state["rise"])
        for parameter, moments in self.adam.state.items():
            for name in ("exp_avg", "exp_avg_sq"):  # checkpoints do not keep the memory layout
                moments[name] = _laid_out_as(parameter, moments[name])


def _laid_out_as(parameter: Tensor, other: Tensor) -> Tensor:
    """Return `other` with the memory layout of the parameter.

    Adam's fused step reads parameter, gradient and moments in memory order: if the layout of one differs from that of
    its (channels-last) parameter, numbers are silently mixed up.
    """
    return other if other.stride() == parameter.stride() else torch.empty_like(parameter).copy_(other)
