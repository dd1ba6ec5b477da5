"""The loop of the planners that sample and refit."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.core import Plan, SearchConfig
from worldvae.planning.problems import Problems
from worldvae.planning.proposal import Proposal, fit

Refit = Callable[
    [Float[Tensor, "batch sample move action"], Float[Tensor, "batch sample"]],
    tuple[Proposal, Float[Tensor, "batch"]],
]
"""From candidates and their returns to the next proposal and the return it promises."""


@torch.no_grad()
def search(
    problems: Problems,
    config: SearchConfig,
    refit: Refit,
    *,
    momentum: float = 0.0,
    fixed: Float[Tensor, "batch sample move action"] | None = None,
) -> Plan:
    """Sample plans, dream their consequences, refit the proposal, repeat; return its mode.

    Args:
        problems: the problems to plan.
        config: numbers of the loop.
        refit: what makes one planner different from another.
        momentum: weight of the current proposal in the next one.
        fixed: candidates that take part in every iteration, in place of as many samples.
    """
    proposal = problems.warm_start(config.std)
    number = config.candidates - (0 if fixed is None else fixed.shape[1])
    for _ in problems.clock.rounds(config.iterations):
        candidates = proposal.sample(number, problems.draws)
        if fixed is not None:
            candidates = torch.cat([fixed, candidates], dim=1)
        refitted, value = refit(candidates, problems.returns(candidates))
        proposal = proposal.blend(refitted, momentum)
    return Plan(problems.hold(proposal.mode()), value)


def best_of(
    candidates: Float[Tensor, "batch sample move action"], returns: Float[Tensor, "batch sample"], number: int
) -> tuple[Float[Tensor, "batch elite move action"], Float[Tensor, "batch elite"]]:
    """Return the `number` best candidates and their returns, best first."""
    best, index = returns.topk(number, dim=1)
    return candidates.gather(1, index[:, :, None, None].expand(-1, -1, *candidates.shape[2:])), best


def fit_elites(
    candidates: Float[Tensor, "batch sample move action"],
    weights: Float[Tensor, "batch sample"],
    problems: Problems,
    config: SearchConfig,
) -> Proposal:
    """Fit a proposal to weighted candidates, with the config's lower bounds."""
    return fit(candidates, weights, problems.layout, config.min_std, config.smoothing)
