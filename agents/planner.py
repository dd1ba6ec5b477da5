"""Model-predictive control: plan, take the first action, look, plan again."""

from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.agents.agent import ModelAgent
from worldvae.agents.policy import ActionDistribution, Actor
from worldvae.models.world_model import WorldModel
from worldvae.planning import (
    CEMConfig,
    Draws,
    GradientConfig,
    GuidedConfig,
    Objective,
    Plan,
    PlanConfig,
    TreeConfig,
    Value,
    discounted_return,
    discrete_actions,
    plan,
    planner_name,
)
from worldvae.types import State


class PlannerAgent(ModelAgent):
    """Plans in latent space at every step, starting from the previous plan.

    Each environment has a random stream of its own: parallel episodes are independent.

    Args:
        model: the world model.
        config: numbers of the planner; its type chooses the planner.
        value: of the states at the end of a plan; used if `config.value` is set.
        noise: standard deviation of Gaussian noise on continuous actions when exploring.
        actor: the policy whose roll-outs are among the candidates of the planner `guided`, and whose probabilities
            the planner `tree` begins with.

    Raises:
        ValueError: If `config.value` is set and there is no value, the planner needs an actor and there is none, it is
            a tree search and the actions are not discrete, or it follows gradients that the model does not have.
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
        if isinstance(self.config, GradientConfig) and not model.differentiable:
            raise ValueError(
                f"the planner gradient follows gradients through dreams, and those of a {type(model).__name__} have "
                "none: take another, such as icem"
            )
        if isinstance(self.config, TreeConfig):
            discrete_actions(model.action_layout)
        self.value = value if self.config.value else None
        self.noise = noise
        self.guide = None if actor is None else _ActorGuide(actor, model)

    def decide(
        self,
        state: State,
        keep: Float[Tensor, "batch"],
        previous: Plan | None,
        generator: torch.Generator | None,
        explore: bool,
    ) -> tuple[Float[Tensor, "batch action"], Plan | None]:
        """Return the first action of a new plan, and the plan; a tree search is random only when it explores."""
        layout = self.model.action_layout
        config = self.config
        if isinstance(config, TreeConfig) and not explore:
            config = replace(config, gumbel=0.0)
        found = plan(
            self.model,
            state,
            self.objective(),
            config,
            generator,
            previous=previous,
            keep=keep,
            keys=range(len(keep)),
            guide=self.guide,
        )
        action = found.actions[:, 0]
        if explore and layout.continuous:
            box = action[:, : layout.continuous]
            noise = torch.randn(box.shape, device=box.device, generator=generator)
            action = torch.cat([(box + self.noise * noise).clamp(-1, 1), action[:, layout.continuous :]], dim=-1)
        return action, found

    def objective(self) -> Objective:
        """Return the objective of plans: the discounted return that the model promises."""
        discount, termination = self.config.discount, self.config.termination
        return partial(discounted_return, discount=discount, value=self.value, termination=termination)


class _ActorGuide:
    """An actor as the guide of a planner."""

    def __init__(self, actor: Actor, model: WorldModel) -> None:
        self.actor, self.model = actor, model

    def __call__(self, state: State, draws: Draws) -> Float[Tensor, "row action"]:
        """Draw an action."""
        policy = self._policy(state)
        rows = state.size // draws.batch
        normal = draws.normal(rows, policy.layout.continuous).flatten(0, 1)
        return policy.draw_from(normal, [draws.uniform(rows).flatten() for _ in policy.layout.categorical])

    def logits(self, state: State) -> Float[Tensor, "row class_"]:
        """Return the log-probability of every class of every block."""
        policy = self._policy(state)
        return torch.cat([block.mean for block in policy.blocks], dim=-1).log()

    def _policy(self, state: State) -> ActionDistribution:
        with self.model.autocast():
            policy: ActionDistribution = self.actor(state.features)
        return policy
