"""The cross-entropy method: sample plans, refit the proposal to the best, repeat."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.core import Objective, Plan, Proposal, SearchConfig, Simulator, best_of, fit, search
from worldvae.types import ActionLayout, State


@dataclass(frozen=True)
class CEMConfig(SearchConfig):
    """Numbers of the planner; those of every `SearchConfig`."""


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
    """Plan from every state of a batch at once; the arguments are those of `search`.

    Reference: Hafner et al. 2019, "Learning Latent Dynamics for Planning from Pixels", algorithm 2.
    """

    def refit(candidates: Tensor, returns: Tensor) -> tuple[Proposal, Tensor]:
        elites, best = best_of(candidates, returns, config.elites)
        equal = torch.full_like(best, 1 / config.elites)
        return fit(elites, equal, layout, config), best.mean(dim=1)

    return search(model, state, objective, layout, config, refit, generator, previous, keep)
