"""What every planner shares: action proposals that respect bounds and discrete parts, and the return of a dream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldvae.types import ActionLayout, Dream, State, TensorTree


@runtime_checkable
class Simulator(Protocol):
    """What a planner needs of a model: the verb `imagine`."""

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"],
        horizon: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Dream:
        """Roll forward from `start` with given actions."""
        ...


Objective = Callable[[Dream], Float[Tensor, "batch"]]


@dataclass(frozen=True)
class Plan(TensorTree):
    """A planned action sequence per problem, and the return the model promises for it."""

    actions: Float[Tensor, "batch horizon action"]
    value: Float[Tensor, "batch"]


def discounted_return(dream: Dream, discount: float) -> Float[Tensor, "batch"]:
    """Return sum_k discount^k (prod_{j<k} c_j) r_k: after a predicted termination nothing more is earned.

    The reward that arrives with the terminal state itself still counts.
    """
    alive = torch.cumprod(dream.continuations[:, :-1], dim=1)
    alive = torch.cat([torch.ones_like(dream.rewards[:, :1]), alive], dim=1)
    powers = discount ** torch.arange(dream.rewards.shape[1], device=dream.rewards.device)
    return (dream.rewards * alive * powers).sum(dim=1)


def one_hot_draw(
    probs: Float[Tensor, "*batch class_"], generator: torch.Generator | None
) -> Float[Tensor, "*batch class_"]:
    """Draw one-hot vectors from probabilities (argmax of p / Exponential(1))."""
    noise = torch.empty_like(probs).exponential_(generator=generator)
    return F.one_hot((probs / noise).argmax(dim=-1), probs.shape[-1]).to(probs.dtype)


def uniform_actions(
    layout: ActionLayout, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Float[Tensor, "*shape action"]:
    """Draw action vectors uniformly: continuous entries in [-1, 1], one class per one-hot block."""
    box = torch.rand(*shape, layout.continuous, device=device, generator=generator) * 2 - 1
    blocks = [one_hot_draw(torch.ones(*shape, n, device=device), generator) for n in layout.categorical]
    return torch.cat([box, *blocks], dim=-1)


@dataclass(frozen=True)
class Proposal:
    """A distribution over action sequences: Gaussian for continuous entries, categorical for one-hot blocks.

    Attributes:
        layout: shape of the action vector.
        mean: means and class probabilities, in the order of the action vector.
        std: standard deviations of the continuous entries.
    """

    layout: ActionLayout
    mean: Float[Tensor, "batch horizon action"]
    std: Float[Tensor, "batch horizon continuous"]

    @classmethod
    def wide(cls, layout: ActionLayout, batch: int, horizon: int, std: float, device: torch.device) -> "Proposal":
        """Return the proposal before anything is known: mean 0 with `std`, all classes equally likely."""
        row = torch.zeros(layout.size, device=device)
        for block, n in zip(layout.blocks, layout.categorical, strict=True):
            row[block] = 1 / n
        mean = row.repeat(batch, horizon, 1)
        return cls(layout, mean, torch.full((batch, horizon, layout.continuous), std, device=device))

    def warm(self, previous: Plan, keep: Float[Tensor, "batch"], trust: float = 0.8) -> "Proposal":
        """Start from the plan of the step before, moved on by one step.

        Args:
            previous: the last plan of the same problems.
            keep: 1 where it still holds, 0 where an episode began since.
            trust: weight of the previous classes against uniform ones in one-hot blocks.
        """
        shifted = torch.cat([previous.actions[:, 1:], self.mean[:, -1:]], dim=1)
        mean = self.mean.clone()
        size = self.layout.continuous
        mean[..., :size] = shifted[..., :size]
        for block in self.layout.blocks:
            mean[..., block] = trust * shifted[..., block] + (1 - trust) * self.mean[..., block]
        mean = torch.where(keep.bool().view(-1, 1, 1), mean, self.mean)
        return Proposal(self.layout, mean, self.std)

    def sample(self, number: int, generator: torch.Generator | None) -> Float[Tensor, "batch sample horizon action"]:
        """Draw candidates; the bounds [-1, 1] are enforced here, and nowhere else."""
        batch, horizon, _ = self.mean.shape
        size = self.layout.continuous
        noise = torch.randn(batch, number, horizon, size, device=self.mean.device, generator=generator)
        box = (self.mean[:, None, :, :size] + self.std[:, None] * noise).clamp(-1, 1)
        blocks = []
        for block in self.layout.blocks:
            probs = self.mean[:, None, :, block].expand(batch, number, horizon, -1)
            blocks.append(one_hot_draw(probs, generator))
        return torch.cat([box, *blocks], dim=-1)

    def mode(self) -> Float[Tensor, "batch horizon action"]:
        """Return the most likely action sequence."""
        size = self.layout.continuous
        parts = [self.mean[..., :size].clamp(-1, 1)]
        for block in self.layout.blocks:
            probs = self.mean[..., block]
            parts.append(F.one_hot(probs.argmax(dim=-1), probs.shape[-1]).to(probs.dtype))
        return torch.cat(parts, dim=-1)
