"""Random shooting: the best of many uniform plans."""

from dataclasses import dataclass

import torch

from worldvae.planning.core import Plan, PlanConfig
from worldvae.planning.problems import Problems
from worldvae.planning.proposal import uniform_actions
from worldvae.planning.search import best_of


@dataclass(frozen=True)
class ShootingConfig(PlanConfig):
    """Numbers of the planner.

    Attributes:
        candidates: uniform plans per iteration.
    """

    candidates: int = 1000
    iterations: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 1:
            raise ValueError(f"candidates={self.candidates} must be at least 1")

    @property
    def breadth(self) -> int:
        """Candidates of an iteration."""
        return self.candidates


@torch.no_grad()
def shooting(problems: Problems, config: ShootingConfig) -> Plan:
    """Return the best of `iterations` times `candidates` uniform plans and the rest of the previous plan.

    Reference: Nagabandi et al. 2018, "Neural Network Dynamics for Model-Based Deep Reinforcement Learning", section
    IV.
    """
    draws, shape = problems.draws, (config.candidates, config.moves)
    best, value = None, None
    for _ in problems.clock.rounds(config.iterations):
        candidates = draws.each(lambda g: uniform_actions(problems.layout, shape, draws.device, g, draws.dtype))
        if best is None:
            left = problems.warm_start(0.0).mode().unsqueeze(1)
            candidates = torch.cat([left, candidates], dim=1)
        found, earned = best_of(candidates, problems.returns(candidates), 1)
        if best is not None and value is not None:
            found, earned = best_of(torch.cat([best, found], dim=1), torch.cat([value, earned], dim=1), 1)
        best, value = found, earned
    assert best is not None and value is not None
    return Plan(problems.hold(best[:, 0]), value[:, 0])
