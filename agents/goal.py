"""Agents that are shown where to go: one plans in the world model, one with the true dynamics beside it."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.agents.agent import Agent, Carry
from worldvae.agents.planner import PlannerAgent
from worldvae.planning import Objective, PlanConfig, Simulator, plan, planner_name, state_distance
from worldvae.types import ActionLayout, Observation, State
from worldvae.world_model import WorldModel


class GoalAgent(PlannerAgent):
    """Plans in latent space towards a goal that is shown to each environment, and for no reward.

    Args:
        model: the world model.
        config: numbers of the planner; its discount and its critic are for rewards, and not used.
        objective: knows the goal of each environment, as those of `planning.GOALS` and `planning.geodesic_distance`.

    Raises:
        ValueError: If the planner needs an actor.
    """

    def __init__(self, model: WorldModel, config: PlanConfig, objective: Objective) -> None:
        super().__init__(model, replace(config, value=False))
        self._objective = objective

    def objective(self) -> Objective:
        """Return what plans are judged by: how soon and how well they reach the goal."""
        return self._objective


class OracleAgent(Agent):
    """Plans with the true dynamics from the true state, by the straight distance to the goal.

    No model of the world can be more right; but an objective that knows the way can be better than the straight line.

    Args:
        simulator: the true dynamics, on states whose memory is the true state.
        layout: shape of the action vector.
        config: numbers of the planner.
        distance: of states to goals, by their last axis.
        goal: the true state that each environment should come to.
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
            State(truth, truth[:, :0]),
            self.objective,
            self.config,
            generator,
            layout=self.layout,
            previous=None if carry is None else carry.plan,
            keep=(~is_first).float(),
            keys=range(len(truth)),
        )
        return found.actions[:, 0], Carry(State(truth, truth[:, :0]), found.actions[:, 0], found)
