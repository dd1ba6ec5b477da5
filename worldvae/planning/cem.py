"""The cross-entropy method: sample plans, refit the proposal to the best, repeat."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.core import Objective, Plan, Proposal, Simulator
from worldvae.types import ActionLayout, State


@dataclass(frozen=True)
class CEMConfig:
    """Numbers of the planner.

    Attributes:
        horizon: steps planned ahead.
        candidates: plans sampled per iteration.
        elites: plans the proposal is refitted to.
        iterations: refits.
        std: standard deviation before the first refit (actions live in [-1, 1]).
        min_std: lower bound of the refitted standard deviation.
        smoothing: weight of uniform classes in refitted one-hot blocks.
        discount: of future rewards.
    """

    horizon: int = 15
    candidates: int = 100
    elites: int = 10
    iterations: int = 3
    std: float = 0.8
    min_std: float = 0.05
    smoothing: float = 0.05
    discount: float = 0.99

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.candidates:
            raise ValueError(f"elites={self.elites} must lie between 1 and candidates={self.candidates}")
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount={self.discount} must lie between 0 and 1")
        if self.horizon < 1 or self.iterations < 1:
            raise ValueError(f"horizon={self.horizon} and iterations={self.iterations} must be at least 1")


def cem(
    model: Simulator,
    state: State,
    objective: Objective,
    layout: ActionLayout,
    config: CEMConfig,
    generator: torch.Generator | None = None,
    previous: Plan | None = None,
    keep: Float[Tensor, "batch"] | None = None,
) -> Plan:
    """Plan from every state of a batch at once.

    Args:
        model: imagines the consequences of candidates.
        state: where each problem starts, `[batch]`.
        objective: from a dream of batch x candidates to its return; higher is better, NaN counts as worst.
        layout: shape of the action vector.
        config: numbers of the planner.
        generator: source of candidates and of the model's samples.
        previous: plan of the step before (warm start).
        keep: where `previous` still holds (default: everywhere).

    Reference: Hafner et al. 2019, "Learning Latent Dynamics for Planning from Pixels", algorithm 2.
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
            returns = objective(dream).view(batch, config.candidates).nan_to_num(nan=-torch.inf)
            best, index = returns.topk(config.elites, dim=1)
            elites = candidates.gather(1, index[:, :, None, None].expand(-1, -1, *candidates.shape[2:]))
            proposal = _refit(elites, layout, config)
    return Plan(proposal.mode(), best.mean(dim=1))


def _refit(elites: Float[Tensor, "batch elite horizon action"], layout: ActionLayout, config: CEMConfig) -> Proposal:
    """Fit means, standard deviations and class probabilities to the elites (biased, so that one elite is no NaN)."""
    mean = elites.mean(dim=1)
    off = (elites - mean.unsqueeze(1))[..., : layout.continuous]
    std = off.square().mean(dim=1).sqrt().clamp(min=config.min_std)  # Tensor.std warns where no entry is continuous
    for block, n in zip(layout.blocks, layout.categorical, strict=True):
        mean[..., block] = (1 - config.smoothing) * mean[..., block] + config.smoothing / n
    return Proposal(layout, mean, std)
