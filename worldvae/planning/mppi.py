"""Model-predictive path integral control: sample plans, weigh each by how well it does, repeat."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.core import Plan, SearchConfig
from worldvae.planning.problems import Problems
from worldvae.planning.proposal import Proposal
from worldvae.planning.search import best_of, fit_elites, search


@dataclass(frozen=True)
class MPPIConfig(SearchConfig):
    """Numbers of the planner; those of every `SearchConfig`, and two more.

    Attributes:
        temperature: how much worse a plan may be and still count, in standard deviations of the elites' returns.
        momentum: weight of the previous proposal in the refitted one, which smooths the search.
    """

    horizon: int = 3
    candidates: int = 512
    elites: int = 64
    iterations: int = 6
    value: bool = True
    temperature: float = 0.5
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < inf:
            raise ValueError(f"temperature={self.temperature} must be above 0 and finite")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum={self.momentum} must be at least 0 and below 1")


def mppi(
    problems: Problems,
    config: MPPIConfig,
    fixed: Float[Tensor, "batch sample move action"] | None = None,
) -> Plan:
    """Plan by weighing the elites; `fixed` candidates take part in every iteration.

    With R the returns of the elites, standardised, means and standard deviations are refitted with weights
    softmax(R / temperature).

    Reference: Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning"; Hansen et al.
    2024, "TD-MPC2", appendix on planning, for elites and the critic at the horizon; Hansen et al. 2022, "TD-MPC", for
    the momentum.
    """

    def refit(candidates: Tensor, returns: Tensor) -> tuple[Proposal, Tensor]:
        elites, best = best_of(candidates, returns, config.elites)
        weights = torch.softmax(_standardised(best) / config.temperature, dim=1)
        promised = (weights * best.clamp(min=torch.finfo(best.dtype).min)).sum(dim=1)
        return fit_elites(elites, weights, problems, config), promised

    return search(problems, config, refit, momentum=config.momentum, fixed=fixed)


def _standardised(returns: Float[Tensor, "batch elite"]) -> Float[Tensor, "batch elite"]:
    """Return how far each is below the best, in standard deviations; where all are worst (-inf), all are equal."""
    there = returns > -torch.inf
    below = torch.where(there, returns.double() - returns[:, :1].double(), 0.0)  # squares of large penalties overflow
    number = there.sum(dim=1, keepdim=True).clamp(min=1)
    mean = below.sum(dim=1, keepdim=True) / number
    variance = ((below - mean).square() * there).sum(dim=1, keepdim=True) / number
    scaled = (below / variance.sqrt().clamp(min=1e-6)).to(returns.dtype)
    return torch.where(there | ~there.any(dim=1, keepdim=True), scaled, -torch.inf)
