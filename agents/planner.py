"""Model-predictive control: plan, take the first action, look, plan again."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.agents.agent import ModelAgent
from worldvae.agents.policy import ActionDistribution, Actor
from worldvae.planning import (
    CEMConfig,
    Draws,
    GuidedConfig,
    Objective,
    Plan,
    PlanConfig,
    Value,
    discounted_return,
    plan,
    planner_name,
)
from worldvae.types import State
from worldvae.world_model import WorldModel


class PlannerAgent(ModelAgent):
    """Plans in latent space at every step, starting from the plan of the step before.

    Each environment draws from a stream of its own: what is played side by side is independent.

    Args:
        model: the world model.
        config: numbers of the planner, whose type says which one it is.
        value: of the states at the end of a plan; used where `config.value` is set.
        noise: standard deviation of Gaussian noise on continuous actions when exploring.
        actor: the policy whose roll-outs are among the candidates of the planner `guided`.

    Raises:
        ValueError: If `config.value` is set and there is no value, or the planner needs an actor and there is none.
    """

    def __init__(
        self,
        model: WorldModel,
        config: PlanConfig | None = None,
        value: Value | None = None,
        noise: float = 0.3,
        actor: Actor | None = None,
    ) -> None:
        super().__init__(model)
        self.config = config or CEMConfig()
        self.name = planner_name(self.config)
        if self.config.value and value is None:
            raise ValueError(f"{self.config} asks for the value of states, and no value was given")
        if isinstance(self.config, GuidedConfig) and actor is None:
            raise ValueError(f"{self.config} asks for the roll-outs of an actor, and no actor was given")
        self.value = value if self.config.value else None
        self.noise = noise
        self.actor = actor

    def decide(
        self,
        state: State,
        keep: Float[Tensor, "batch"],
        previous: Plan | None,
        generator: torch.Generator | None,
        explore: bool,
    ) -> tuple[Float[Tensor, "batch action"], Plan | None]:
        """Return the first action of a fresh plan, and the plan."""
        layout = self.model.action_layout
        with self.model.autocast():
            found = plan(
                self.model,
                state,
                self.objective(),
                self.config,
                generator,
                previous=previous,
                keep=keep,
                keys=range(len(keep)),
                guide=None if self.actor is None else self._guide,
            )
        action = found.actions[:, 0]
        if explore and layout.continuous:
            box = action[:, : layout.continuous]
            noise = torch.randn(box.shape, device=box.device, generator=generator)
            action = torch.cat([(box + self.noise * noise).clamp(-1, 1), action[:, layout.continuous :]], dim=-1)
        return action, found

    def objective(self) -> Objective:
        """Return what plans are judged by: the discounted return that the model promises."""
        return partial(discounted_return, discount=self.config.discount, value=self.value)

    def _guide(self, state: State, draws: Draws) -> Float[Tensor, "row action"]:
        assert self.actor is not None
        policy: ActionDistribution = self.actor(state.features)
        rows = len(state.memory) // draws.batch
        normal = draws.normal(rows, policy.layout.continuous).flatten(0, 1)
        return policy.draw_from(normal, [draws.uniform(rows).flatten() for _ in policy.layout.categorical])
