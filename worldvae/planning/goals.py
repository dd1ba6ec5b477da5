"""Objectives of planning towards a goal that is shown, not paid for: be where the goal is, and be there soon.

Each sums over the steps of a dream, so that of two plans that arrive the sooner is better (eb_jepa, the examples to
Meta's JEPAs, gains 8 points by the sum over the last step alone).
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from worldvae.planning.simulator import Objective
from worldvae.types import Dream, State


def latent_distance(goal: State) -> Objective:
    """Return the objective -sum_k |z_k - z_goal|, of dreams of the same number of candidates for each goal.

    Latents alone are compared: the memory of the goal, which nothing led to, is that of an episode's first row.
    """

    def objective(dream: Dream) -> Float[Tensor, "batch"]:
        target = repeated(goal.latent, len(dream.rewards))
        total: Tensor = -(dream.states.latent - target.unsqueeze(1)).norm(dim=-1).sum(dim=1)
        return total

    return objective


def state_distance(distance: Callable[[Tensor, Tensor], Tensor], goal: Float[Tensor, "batch state"]) -> Objective:
    """Return the objective -sum_k distance(s_k, s_goal), for simulators whose memory is the true state s.

    Args:
        distance: of states to goals, by their last axis.
        goal: dreams have the same number of candidates for each.
    """

    def objective(dream: Dream) -> Float[Tensor, "batch"]:
        states = dream.states.memory
        target = repeated(goal, len(states)).unsqueeze(1).expand_as(states)
        total: Tensor = -distance(states, target).sum(dim=1)
        return total

    return objective


def repeated(goal: Float[Tensor, "batch *rest"], rows: int) -> Float[Tensor, "row *rest"]:
    """Return each goal as often as there are candidates for it, in the order of `Problems`: goal after goal.

    Raises:
        ValueError: If so many rows are not the same number for each goal.
    """
    candidates, left = divmod(rows, len(goal))
    if left or not candidates:
        raise ValueError(f"{rows} dreams cannot be shared out among {len(goal)} goals: give one goal for each problem")
    return goal.repeat_interleave(candidates, dim=0)
