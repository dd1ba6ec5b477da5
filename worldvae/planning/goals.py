"""Objectives of planning towards a goal that is shown, not paid for: be where the goal is, and be there soon.

Each sums over the steps of a dream, so that of two plans that arrive the sooner is better (eb_jepa, the examples to
Meta's JEPAs, gains 8 points by the sum over the last step alone).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.simulator import Objective
from worldvae.types import Batch, Dream, Observation, State
from worldvae.world_model import WorldModel


@torch.no_grad()
def goal_state(model: WorldModel, goal: Observation) -> State:
    """Return the likeliest state of a goal, seen as the first row of an episode.

    Args:
        model: the world model.
        goal: frames or vectors, `[batch]`.
    """
    there = goal.pixels if goal.pixels is not None else goal.vector
    assert there is not None
    rows = len(there)
    nothing = torch.zeros(rows, 1, device=model.device)
    action = torch.zeros(rows, 1, model.action_layout.size, device=model.device)
    first = torch.ones(rows, 1, dtype=torch.bool, device=model.device)
    row = Batch(goal.to(model.device).map(lambda x: x.unsqueeze(1)), action, nothing, ~first, first)
    return model.observe(row, mode=True).posterior[:, 0]


def latent_distance(goal: State) -> Objective:
    """Return the objective -sum_k |z_k - z_goal|, of dreams of the same number of candidates for each goal.

    Latents alone are compared: the memory of the goal, which nothing led to, is that of an episode's first row.
    """

    def objective(dream: Dream) -> Float[Tensor, "batch"]:
        target = repeated(goal.latent, len(dream.rewards))
        total: Tensor = -(dream.states.latent - target.unsqueeze(1)).norm(dim=-1).sum(dim=1)
        return total

    return objective


def goal_probability(model: WorldModel, goal: Observation) -> Objective:
    """Return the objective sum_k log q(z_k | h_k, e_goal): would the goal's frame leave what is imagined as it is?

    Args:
        model: the world model.
        goal: frames or vectors, `[batch]`; dreams have the same number of candidates for each.
    """
    with torch.no_grad():
        projected = model.posterior.project(_embedding(model, goal))

    def objective(dream: Dream) -> Float[Tensor, "batch"]:
        memory, latent = dream.states.memory, dream.states.latent
        embedded = repeated(projected, len(memory)).unsqueeze(1).expand(-1, memory.shape[1], -1)
        _, q = model.posterior.infer(memory, embedded, None)
        total: Tensor = model.posterior.distribution(q).log_prob(latent).sum(dim=1)
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


GOALS: dict[str, Callable[[WorldModel, Observation], Objective]] = {
    "distance": lambda model, goal: latent_distance(goal_state(model, goal)),
    "probability": goal_probability,
}
"""How a world model is asked to reach an observation, by name, where nothing else is known."""


def _embedding(model: WorldModel, goal: Observation) -> Float[Tensor, "batch embedding"]:
    embedding = model.encode(goal.to(model.device))
    if model.smoother is None:
        return embedding
    first = torch.ones(len(embedding), 1, dtype=torch.bool, device=model.device)
    action = torch.zeros(len(embedding), 1, model.action_layout.size, device=model.device)
    smoothed: Tensor = model.smoother(embedding.unsqueeze(1), action, first)
    return smoothed[:, 0]
