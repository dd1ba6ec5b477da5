"""Model-predictive path integral control: sample plans, weigh each by how well it does, repeat."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.core import Objective, Plan, Proposal, SearchConfig, Simulator, best_of, fit, search
from worldvae.types import ActionLayout, State


@dataclass(frozen=True)
class MPPIConfig(SearchConfig):
    """Numbers of the planner; those of every `SearchConfig`, and one more.

    Attributes:
        temperature: how much worse a plan may be and still count, in standard deviations of the elites' returns.
    """

    horizon: int = 3
    candidates: int = 512
    elites: int = 64
    iterations: int = 6
    value: bool = True
    temperature: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature} must be above 0")


def mppi(
    model: Simulator,
    state: State,
    objective: Objective,
    layout: ActionLayout,
    config: MPPIConfig,
    generator: torch.Generator | None = None,
    previous: Plan | None = None,
    keep: Float[Tensor, "batch"] | None = None,
) -> Plan:
    """Plan from every state of a batch at once; the arguments are those of `search`.

    With R the returns of the elites, standardised, the proposal is refitted with weights softmax(R / temperature).

    Reference: Williams et al. 2017, "Information Theoretic MPC for Model-Based Reinforcement Learning"; Hansen et al.
    2024, "TD-MPC2", appendix on planning, for elites and the critic at the horizon.
    """

    def refit(candidates: Tensor, returns: Tensor) -> tuple[Proposal, Tensor]:
        elites, best = best_of(candidates, returns, config.elites)
        weights = torch.softmax(_standardised(best) / config.temperature, dim=1)
        promised = (weights * best.clamp(min=torch.finfo(best.dtype).min)).sum(dim=1)
        return fit(elites, weights, layout, config), promised

    return search(model, state, objective, layout, config, refit, generator, previous, keep)


def _standardised(returns: Float[Tensor, "batch elite"]) -> Float[Tensor, "batch elite"]:
    """Return how far each is below the best, in standard deviations; where all are worst (-inf), all are equal."""
    there = returns > -torch.inf
    below = torch.where(there, returns.double() - returns[:, :1].double(), 0.0)  # squares of large penalties overflow
    number = there.sum(dim=1, keepdim=True).clamp(min=1)
    mean = below.sum(dim=1, keepdim=True) / number
    variance = ((below - mean).square() * there).sum(dim=1, keepdim=True) / number
    scaled = (below / variance.sqrt().clamp(min=1e-6)).to(returns.dtype)
    return torch.where(there | ~there.any(dim=1, keepdim=True), scaled, -torch.inf)
