"""Agents that see a goal: one plans in the world model, the oracle with the true dynamics.

The objectives of plans towards a goal that need a world model are here, too (`GOALS`): planners know no world model.
"""

from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.agents.agent import Agent, Carry
from worldvae.agents.planner import PlannerAgent
from worldvae.errors import UserError
from worldvae.models.probabilistic import Probabilistic
from worldvae.models.world_model import WorldModel
from worldvae.planning import (
    Landmarks,
    Objective,
    PlanConfig,
    Simulator,
    geodesic_distance,
    plan,
    planner_name,
    state_distance,
)
from worldvae.planning.goal_objectives import candidates_of_each
from worldvae.types import ActionLayout, Batch, Dream, Observation, State, VectorState


@torch.no_grad()
def goal_state(model: WorldModel, goal: Observation) -> State:
    """Return the likeliest state of a goal, seen as the first row of an episode.

    Args:
        model: the world model.
        goal: frames or vectors, `[batch]`.
    """
    return model.observe(_first_row(model, goal), mode=True).posterior[:, 0]


_part = attrgetter("without_memory")  # what is compared with goals; of a state with a memory h and a latent z it is z


def latent_distance(model: WorldModel, goal: Observation) -> Objective:
    """Return the objective -sum_k |z_k - z_goal|, of dreams of the same number of candidates for each goal."""
    return state_distance(lambda z, goal: (z - goal).norm(dim=-1), goal_state(model, goal).without_memory, _part)


def landmark_distance(model: WorldModel, goal: Observation, landmarks: Landmarks) -> Objective:
    """Return the objective `geodesic_distance` of latents, along landmarks from `latent_landmarks`."""
    return geodesic_distance(landmarks, goal_state(model, goal).without_memory, _part)


def latent_landmarks(model: WorldModel, seen: Observation) -> Landmarks:
    """Return the latents of observations `[batch]`, each inferred as the first row of an episode."""
    return Landmarks(goal_state(model, seen).without_memory)


def goal_probability(model: WorldModel, goal: Observation) -> Objective:
    """Return the objective sum_k log q(z_k | h_k, e_goal): is the imagined z likely under the goal's frame?

    Args:
        model: the world model.
        goal: frames or vectors, `[batch]`; dreams have the same number of candidates for each.

    Raises:
        UserError: If the model has no q(z | h, e).
    """
    if not isinstance(model, Probabilistic):
        raise UserError(f"the objective 'probability' asks q(z | h, e), which a {type(model).__name__} does not have.")
    with torch.no_grad():
        embedding = model.embed(_first_row(model, goal))  # [goal, 1, embedding]

    def objective(dream: Dream) -> Float[Tensor, "batch"]:
        goals = len(embedding)
        shape = (goals, candidates_of_each(goals, dream.states.size))
        states = dream.states.map(lambda x: x.unflatten(0, shape))  # [goal, candidate, horizon]
        return model.log_posterior(states, embedding.unsqueeze(1)).flatten(0, 1).sum(dim=1)

    return objective


GOALS: dict[str, Callable[[WorldModel, Observation], Objective]] = {
    "distance": latent_distance,
    "probability": goal_probability,
}
"""Objectives of reaching an observation that need nothing but the model, by name."""


def _first_row(model: WorldModel, goal: Observation) -> Batch:
    """Return `[batch, 1]` rows: first rows of episodes, with the goals as observations."""
    there = goal.pixels if goal.pixels is not None else goal.vector
    assert there is not None
    rows = len(there)
    nothing = torch.zeros(rows, 1, device=model.device)
    action = torch.zeros(rows, 1, model.action_layout.size, device=model.device)
    first = torch.ones(rows, 1, dtype=torch.bool, device=model.device)
    return Batch(goal.to(model.device).map(lambda x: x.unsqueeze(1)), action, nothing, ~first, first)


class GoalAgent(PlannerAgent):
    """Plans in latent space towards the goal of each environment; rewards do not count.

    Args:
        model: the world model.
        config: numbers of the planner; its discount and its critic, which are for rewards, are not used.
        objective: knows the goal of each environment, as those of `GOALS` and `landmark_distance`.

    Raises:
        ValueError: If the planner needs an actor.
    """

    def __init__(self, model: WorldModel, config: PlanConfig, objective: Objective) -> None:
        super().__init__(model, replace(config, value=False))
        self._objective = objective

    def objective(self) -> Objective:
        """Return the objective of plans: how soon and how well they reach the goal."""
        return self._objective


class OracleAgent(Agent):
    """Plans with the true dynamics from the true state, by the straight distance to the goal.

    No model of the world is more accurate; but an objective that knows the path can beat the straight line.

    Args:
        simulator: the true dynamics, on states that are the true state (`VectorState`).
        layout: shape of the action vector.
        config: numbers of the planner.
        distance: of states to goals, by their last axis.
        goal: the true state that each environment should reach.
    """

    def __init__(
        self,
        simulator: Simulator,
        layout: ActionLayout,
        config: PlanConfig,
        distance: Callable[[Tensor, Tensor], Tensor],
        goal: Float[Tensor, "batch state"],
    ) -> None:
        self.simulator, self.layout, self.config = simulator, layout, config
        self.objective = state_distance(distance, goal)
        self.name = planner_name(config)

    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[Tensor, "batch action"], Carry | None]:
        """Plan from `observation.vector`, which has to be the true state."""
        truth = observation.vector
        assert truth is not None, "the oracle is shown the true state as a vector"
        found = plan(
            self.simulator,
            VectorState(truth),
            self.objective,
            self.config,
            generator,
            layout=self.layout,
            previous=None if carry is None else carry.plan,
            keep=(~is_first).float(),
            keys=range(len(truth)),
        )
        return found.actions[:, 0], Carry(found.actions[:, 0], VectorState(truth), found)
