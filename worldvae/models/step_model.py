"""What world models without a posterior have in common: a roll-out of single steps, and heads that read features."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.likelihoods import BernoulliLikelihood, ScalarGaussianLikelihood, TwoHotLikelihood
from worldvae.models.parts import WorldModelConfig, autocast, choose_precision
from worldvae.models.world_model import Policy
from worldvae.types import ActionLayout, Dream, ObservationLayout, State


class StepModel(nn.Module, ABC):
    """Base of the kinds that imagine step by step: a class of one says what a step, an observation and a loss are.

    Args:
        observation: what the environment shows.
        action: shape of the action vector.
        config: the parts and their sizes.

    Attributes:
        reward_head: p(r | features), built by the class.
        continuation_head: p(c | features), built by the class.
    """

    reward_head: TwoHotLikelihood | ScalarGaussianLikelihood
    continuation_head: BernoulliLikelihood

    def __init__(self, observation: ObservationLayout, action: ActionLayout, config: WorldModelConfig) -> None:
        super().__init__()
        self.observation_layout, self.action_layout, self.config = observation, action, config

    @property
    def device(self) -> torch.device:
        """The device of the parameters."""
        return next(self.parameters()).device

    @property
    def differentiable(self) -> bool:
        """Whether the gradient of imagined features is whole: yes, unless a class says otherwise."""
        return True

    @property
    def hidden(self) -> int:
        """Width of the hidden layers of the perceptrons."""
        return self.config.resolve("hidden")

    @property
    def precision(self) -> str:
        """What convolutions and imagination compute in, "float32" or "bfloat16"; measured once for "auto"."""
        return choose_precision(self.config, self.observation_layout.pixels, self.device)

    def autocast(self) -> torch.autocast:
        """Return the context in which large matrix products and convolutions run in `precision`."""
        return autocast(self.config, self.observation_layout.pixels, self.device)

    @abstractmethod
    def step(
        self, state: State, action: Float[Tensor, "batch action"], noise: Float[Tensor, "batch noise"] | None
    ) -> State:
        """Return the state after one imagined step, in float32; without noise, the likeliest one."""

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape noise"]:
        """Draw the random numbers of `imagine`: none, unless a class says otherwise."""
        return torch.zeros(*shape, 0, device=self.device)

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"] | Policy,
        horizon: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: Float[Tensor, "horizon batch noise"] | None = None,
        mode: bool = False,
        last_only: bool = False,
    ) -> Dream:
        """Roll forward from states `[batch]`, step by step; see `WorldModel.imagine` for the arguments.

        Rewards and continuations are read as each state appears, so that with `last_only` no other state is kept.
        """
        if isinstance(actions, Tensor):
            horizon = actions.shape[1]
        assert horizon is not None, "imagining with a policy needs a horizon"
        if noise is None and not mode:
            noise = self.noise((horizon, start.size), generator)
        state, states = start, list[State]()
        taken, rewards, continuations = list[Tensor](), list[Tensor](), list[Tensor]()
        for t in range(horizon):
            taken.append(actions[:, t] if isinstance(actions, Tensor) else actions(state))
            state = self.step(state, taken[-1], None if noise is None else noise[t])
            states = [state] if last_only else [*states, state]
            rewards.append(self.reward(state).mean)
            continuations.append(self.continuation(state).mean)
        return Dream(
            start,
            State.stack(states, dim=1),
            torch.stack(taken, dim=1),
            torch.stack(rewards, dim=1).float(),
            torch.stack(continuations, dim=1).float(),
        )

    def reward(self, states: State) -> Distribution:
        """Return p(r | features) of the reward that arrives with a state."""
        return self.reward_head(states.features)  # type: ignore[no-any-return]

    def continuation(self, states: State) -> Distribution:
        """Return the Bernoulli distribution of the episode continuing after a state (1 - termination)."""
        return self.continuation_head(states.features)  # type: ignore[no-any-return]

    def updated(self) -> None:
        """Do nothing: no weights follow others, unless a class says otherwise."""
