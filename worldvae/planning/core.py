"""What every planner shares: action proposals that respect bounds and discrete parts, and the return of a dream."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldvae.distributions import one_hot_draw
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
Value = Callable[[State], Float[Tensor, "batch"]]


@dataclass(frozen=True)
class Plan(TensorTree):
    """A planned action sequence per problem, and the return the model promises for it."""

    actions: Float[Tensor, "batch horizon action"]
    value: Float[Tensor, "batch"]


def discounted_return(dream: Dream, discount: float, value: Value | None = None) -> Float[Tensor, "batch"]:
    """Return sum_k discount^k (prod_{j<k} c_j) r_k: after a predicted termination nothing more is earned.

    The reward that arrives with the terminal state itself still counts.

    Args:
        dream: `[batch, horizon]`.
        discount: of future rewards.
        value: what is earned after the dream's last state; default: nothing.
    """
    reached = torch.cumprod(discount * dream.continuations, dim=1)
    weights = torch.cat([torch.ones_like(reached[:, :1]), reached[:, :-1]], dim=1)
    total = (dream.rewards * weights).sum(dim=1)
    return total if value is None else total + reached[:, -1] * value(dream.states[:, -1])


def uniform_actions(
    layout: ActionLayout, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Float[Tensor, "*shape action"]:
    """Draw action vectors uniformly: continuous entries in [-1, 1], one class per one-hot block."""
    box = torch.rand(*shape, layout.continuous, device=device, generator=generator) * 2 - 1
    blocks = []
    for n in layout.categorical:
        uniform = torch.rand(shape, device=device, generator=generator)
        blocks.append(one_hot_draw(torch.ones(*shape, n, device=device), uniform))
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
            uniform = torch.rand(batch, number, horizon, device=probs.device, generator=generator)
            blocks.append(one_hot_draw(probs, uniform))
        return torch.cat([box, *blocks], dim=-1)

    def mode(self) -> Float[Tensor, "batch horizon action"]:
        """Return the most likely action sequence."""
        size = self.layout.continuous
        parts = [self.mean[..., :size].clamp(-1, 1)]
        for block in self.layout.blocks:
            probs = self.mean[..., block]
            parts.append(F.one_hot(probs.argmax(dim=-1), probs.shape[-1]).to(probs.dtype))
        return torch.cat(parts, dim=-1)


@dataclass(frozen=True)
class SearchConfig:
    """Numbers that every sampling planner has.

    Attributes:
        horizon: steps planned ahead.
        candidates: plans sampled per iteration.
        elites: the best plans, to which the proposal is refitted.
        iterations: refits.
        std: standard deviation before the first refit (actions live in [-1, 1]).
        min_std: lower bound of the refitted standard deviation.
        smoothing: weight of uniform classes in refitted one-hot blocks.
        discount: of future rewards.
        value: whether the critic says what comes after the horizon; a run's agents then take the critic's discount.
    """

    horizon: int = 15
    candidates: int = 100
    elites: int = 10
    iterations: int = 3
    std: float = 0.8
    min_std: float = 0.05
    smoothing: float = 0.05
    discount: float = 0.99
    value: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.candidates:
            raise ValueError(f"elites={self.elites} must lie between 1 and candidates={self.candidates}")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount={self.discount} must lie between 0 and 1")
        if self.horizon < 1 or self.iterations < 1:
            raise ValueError(f"horizon={self.horizon} and iterations={self.iterations} must be at least 1")


Refit = Callable[
    [Float[Tensor, "batch sample horizon action"], Float[Tensor, "batch sample"]],
    tuple[Proposal, Float[Tensor, "batch"]],
]
"""From candidates and their returns to the next proposal and the return it promises."""


def search(
    model: Simulator,
    state: State,
    objective: Objective,
    layout: ActionLayout,
    config: SearchConfig,
    refit: Refit,
    generator: torch.Generator | None = None,
    previous: Plan | None = None,
    keep: Float[Tensor, "batch"] | None = None,
) -> Plan:
    """Sample plans, dream their consequences, refit the proposal, repeat; return its mode.

    Args:
        model: imagines the consequences of candidates.
        state: where each problem starts, `[batch]`.
        objective: from a dream of batch x candidates to its return; higher is better, NaN counts as worst.
        layout: shape of the action vector.
        config: numbers of the loop.
        refit: what makes one planner different from another.
        generator: source of candidates and of the model's samples.
        previous: plan of the step before (warm start).
        keep: where `previous` still holds (default: everywhere).
    """
    batch, device = state.memory.shape[0], state.memory.device
    proposal = Proposal.wide(layout, batch, config.horizon, config.std, device)
    if previous is not None:
        keep = torch.ones(batch, device=device) if keep is None else keep
        proposal = proposal.warm(previous, keep)
    starts = state.map(lambda x: x.repeat_interleave(config.candidates, dim=0))
    with torch.no_grad():
        for _ in range(config.iterations):
            candidates = proposal.sample(config.candidates, generator)
            dream = model.imagine(starts, candidates.flatten(0, 1), generator=generator)
            returns = (
                objective(dream)
                .view(batch, config.candidates)
                .nan_to_num(nan=-torch.inf, posinf=torch.finfo(torch.float32).max, neginf=-torch.inf)
            )
            proposal, value = refit(candidates, returns)
    return Plan(proposal.mode(), value)


def best_of(
    candidates: Float[Tensor, "batch sample horizon action"], returns: Float[Tensor, "batch sample"], number: int
) -> tuple[Float[Tensor, "batch elite horizon action"], Float[Tensor, "batch elite"]]:
    """Return the `number` best candidates and their returns, best first."""
    best, index = returns.topk(number, dim=1)
    return candidates.gather(1, index[:, :, None, None].expand(-1, -1, *candidates.shape[2:])), best


def fit(
    candidates: Float[Tensor, "batch sample horizon action"],
    weights: Float[Tensor, "batch sample"],
    layout: ActionLayout,
    config: SearchConfig,
) -> Proposal:
    """Fit means, standard deviations and class probabilities to candidates with weights of sum 1."""
    by = weights[:, :, None, None]
    mean = (by * candidates).sum(dim=1)
    off = (candidates - mean.unsqueeze(1))[..., : layout.continuous]
    std = (by * off.square()).sum(dim=1).sqrt().clamp(min=config.min_std)
    for block, n in zip(layout.blocks, layout.categorical, strict=True):
        mean[..., block] = (1 - config.smoothing) * mean[..., block] + config.smoothing / n
    return Proposal(layout, mean, std)
