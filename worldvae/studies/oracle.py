"""The true world as a simulator to plan with, and agents that see the true state: the ceilings of a comparison."""

from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.agents import Agent, Carry
from worldvae.envs import EnvConfig, make_from
from worldvae.errors import UserError
from worldvae.planning import PlanConfig, discounted_return, plan, planner_name
from worldvae.studies.true_worlds import TrueWorld, true_world
from worldvae.types import ActionLayout, Dream, Observation, State, VectorState


class Oracle:
    """The true dynamics of a task as a `Simulator` (and `Stochastic`); a state is a `VectorState` of the true state.

    A step takes as many environment steps as a decision does, ends early where the episode terminates, and computes in
    the state's dtype. Nothing is earned after a termination. Time limits are not part of it.

    Args:
        world: what is known of the environment.
        action_layout: shape of the action vector.
        repeat: environment steps of a decision.
        random: whether what is random is drawn; otherwise a dream follows its mean.
    """

    def __init__(self, world: TrueWorld, action_layout: ActionLayout, repeat: int = 1, random: bool = True) -> None:
        self.world, self.action_layout, self.repeat, self.random = world, action_layout, repeat, random

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape noise"]:
        """Draw what `imagine` needs, for the shape (horizon, batch)."""
        size = self.repeat * self.world.noises if self.random else 0
        return torch.randn(*shape, size, generator=generator)

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"],
        horizon: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: Float[Tensor, "horizon batch noise"] | None = None,
    ) -> Dream:
        """Roll forward from true states `[batch]` with given actions."""
        state, size = start.features, self.world.noises
        batch, steps = actions.shape[:2]
        if noise is None:
            noise = self.noise((steps, batch), generator)
        if not self.random:
            noise = state.new_zeros(steps, batch, self.repeat * size)
        noise = noise.to(state).unflatten(-1, (self.repeat, size))
        ended = torch.zeros(batch, dtype=torch.bool, device=state.device)
        states, rewards, continuations = list[Tensor](), list[Tensor](), list[Tensor]()
        for action, draws in zip(actions.to(state).unbind(dim=1), noise, strict=True):
            total = torch.zeros_like(state[:, 0])
            for k in range(self.repeat):
                following, reward, fell = self.world.step(state, action, draws[:, k])
                state = torch.where(ended.unsqueeze(-1), state, following)
                total = total + reward.masked_fill(ended, 0.0)
                ended = ended | fell
            states.append(state)
            rewards.append(total)
            continuations.append((~ended).to(state.dtype))
        return Dream(
            start,
            VectorState(torch.stack(states, dim=1)),
            actions,
            torch.stack(rewards, dim=1),
            torch.stack(continuations, dim=1),
        )


def oracle(config: EnvConfig, random: bool = True) -> Oracle:
    """Return the true dynamics of the task that `config` describes.

    Args:
        config: which environment, its arguments, and how often an action is repeated.
        random: False for dreams that follow the mean of what is random.

    Raises:
        UserError: If the environment cannot be made, or its dynamics are not known.
    """
    env = make_from(config)
    try:
        return Oracle(true_world(config, env), env.action_layout, config.action_repeat, random)
    finally:
        env.close()


def _seen(world: TrueWorld, observation: Observation) -> Float[Tensor, "batch state"]:
    """Return the true state from an observation that shows it.

    Raises:
        UserError: If the observation does not.
    """
    vector = observation.vector
    if vector is None or vector.shape[-1] != len(world.names):
        found = "no vector" if vector is None else f"a vector of {vector.shape[-1]} numbers"
        raise UserError(
            f"an agent that knows the true state is shown {found}, and needs {', '.join(world.names)}: give "
            "env.obs=state, and of the linear world env.kwargs.full_state=true."
        )
    return world.state_of(vector)


class TruePlanner(Agent):
    """Plans for the return with the true dynamics from the true state, which the observed vector has to show.

    Args:
        simulator: result of `oracle`.
        config: numbers of the planner; its type chooses it, and its critic's value is not used.
    """

    def __init__(self, simulator: Oracle, config: PlanConfig) -> None:
        self.simulator, self.config = simulator, config
        self.name = f"oracle {planner_name(config)}"
        self.objective = partial(discounted_return, discount=config.discount, termination=config.termination)

    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[Tensor, "batch action"], Carry | None]:
        """Plan anew, beginning with the last plan."""
        state = VectorState(_seen(self.simulator.world, observation))
        found = plan(
            self.simulator,
            state,
            self.objective,
            self.config,
            generator,
            previous=None if carry is None else carry.plan,
            keep=(~is_first).float(),
            keys=range(len(is_first)),
        )
        return found.actions[:, 0], Carry(found.actions[:, 0], state, found)


class Expert(Agent):
    """Acts by the task's own policy that sees the true state: optimal for wind and detail, LQR for the linear world.

    Args:
        world: what is known of the environment.
    """

    name = "expert"

    def __init__(self, world: TrueWorld) -> None:
        self.world = world

    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[Tensor, "batch action"], Carry | None]:
        """Return what the policy does; nothing is remembered."""
        return self.world.expert(_seen(self.world, observation)), None
