"""Objectives of planning towards a goal that is shown, without rewards: be at the goal, and be there soon.

Each sums over the steps of a dream, so that of two plans that arrive the sooner is better (eb_jepa, the examples to
Meta's JEPAs, gains 8 points by the sum over the last step alone).
"""

from collections.abc import Callable
from operator import attrgetter

from jaxtyping import Float
from torch import Tensor

from worldvae.planning.simulator import Objective
from worldvae.types import Dream, State


def state_distance(
    distance: Callable[[Tensor, Tensor], Tensor],
    goal: Float[Tensor, "batch part"],
    about: Callable[[State], Tensor] = attrgetter("features"),
) -> Objective:
    """Return the objective -sum_k distance(about(s_k), goal), of dreams of the same number of candidates for each goal.

    Args:
        distance: between a part of the states and the goals, over the last axis.
        goal: the same part of each goal's state.
        about: that part of a state; default: its features, which are the true state in a `VectorState`.
    """

    def objective(dream: Dream) -> Float[Tensor, "batch"]:
        states = about(dream.states)
        target = for_candidates(goal, len(states)).unsqueeze(1).expand_as(states)
        total: Tensor = -distance(states, target).sum(dim=1)
        return total

    return objective


def for_candidates(goal: Float[Tensor, "batch *rest"], rows: int) -> Float[Tensor, "row *rest"]:
    """Return each goal as often as there are candidates for it, in the order of `Problems`: goal after goal.

    Raises:
        ValueError: If `rows` is no multiple of the number of goals.
    """
    return goal.repeat_interleave(candidates_of_each(len(goal), rows), dim=0)


def candidates_of_each(goals: int, rows: int) -> int:
    """Return how many of the rows of dreams are for each goal.

    Raises:
        ValueError: If `rows` is no multiple of the number of goals.
    """
    candidates, left = divmod(rows, goals)
    if left or not candidates:
        raise ValueError(f"{rows} dreams cannot be shared out among {goals} goals: give one goal for each problem")
    return candidates
