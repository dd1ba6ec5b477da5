"""The cross-entropy method: sample plans, refit the proposal to the best, repeat."""

from dataclasses import dataclass

import torch
from torch import Tensor

from worldvae.planning.core import Plan, SearchConfig
from worldvae.planning.problems import Problems
from worldvae.planning.proposal import Proposal
from worldvae.planning.search import best_of, fit_elites, search


@dataclass(frozen=True)
class CEMConfig(SearchConfig):
    """Numbers of the planner; those of every `SearchConfig`."""


def cem(problems: Problems, config: CEMConfig) -> Plan:
    """Plan by refitting to the elites.

    Reference: Hafner et al. 2019, "Learning Latent Dynamics for Planning from Pixels", algorithm 2.
    """

    def refit(candidates: Tensor, returns: Tensor) -> tuple[Proposal, Tensor]:
        elites, best = best_of(candidates, returns, config.elites)
        equal = torch.full_like(best, 1 / config.elites)
        return fit_elites(elites, equal, problems, config), best.mean(dim=1)

    return search(problems, config, refit)
