"""A world model without encoder, latent or noise: x' = x + f(x, a), fitted by least squares to observed vectors.

It implements the protocol `WorldModel`, and nothing else.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from worldvae.models.world_model import Loss, Observed, Policy
from worldvae.types import ActionLayout, Batch, Dream, Modality, Observation, ObservationLayout, State, VectorState


class FakeModel(nn.Module):
    hidden, precision, shows = 16, "float32", frozenset[Modality]({"vector"})
    device, differentiable = torch.device("cpu"), True

    def __init__(self, observation: ObservationLayout, action: ActionLayout, *_: Any) -> None:
        super().__init__()
        self.observation_layout, self.action_layout, self.feature_size = observation, action, observation.vector
        self.move = nn.Linear(self.feature_size + action.size, self.feature_size)
        self.heads = nn.Linear(self.feature_size, 2)
        self.register_buffer("updates", torch.zeros(()))

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", enabled=False)

    def calibrate(self, observation: Observation, reward: Tensor | None = None) -> None:
        self.heads.bias.data[0] = reward.mean()

    def initial(self, batch: int) -> State:
        return VectorState(torch.zeros(batch, self.feature_size))

    def encode(self, observation: Observation) -> Tensor:
        return observation.vector

    def observe(self, batch: Batch, state=None, action=None, generator=None, *, mode: bool = False) -> Observed:
        return Observed(VectorState(self.encode(batch.observation)))

    def noise(self, shape: tuple[int, ...], generator=None) -> Tensor:
        return torch.zeros(*shape, 0)

    def imagine(
        self, start: State, actions: Tensor | Policy, horizon: int = 0, generator=None, *, last_only=False, **_: Any
    ) -> Dream:
        states, taken = [start], []
        for t in range(actions.shape[1] if isinstance(actions, Tensor) else horizon):
            taken.append(actions[:, t] if isinstance(actions, Tensor) else actions(states[-1]))
            states.append(self._after(states[-1], taken[-1]))
        dreamt, kept = State.stack(states[1:], 1), State.stack(states[-1:] if last_only else states[1:], 1)
        return Dream(start, kept, torch.stack(taken, 1), self.reward(dreamt).mean, self.continuation(dreamt).mean)

    def _after(self, states: State, action: Tensor) -> State:
        return VectorState(states.features + self.move(torch.cat([states.features, action], -1)))

    def decode(self, states: State, modality: Modality | None = None) -> Distribution:
        return Independent(Normal(states.features, 1.0), 1)

    def reward(self, states: State) -> Distribution:
        return Normal(self.heads(states.features)[..., 0], 1.0)

    def continuation(self, states: State) -> Distribution:
        return Bernoulli(logits=self.heads(states.features)[..., 1] + 5)

    def in_shown_units(self, states: State, observation: Observation) -> tuple[Tensor, Tensor]:
        return observation.vector, states.features

    def render(self, states: State, steps: int, generator=None) -> Tensor:
        raise NotImplementedError("vectors are not rendered")

    def loss(self, batch: Batch, generator=None) -> Loss:
        states = self.observe(batch).posterior
        error = self._after(states, batch.action).features[:, :-1] - states.features[:, 1:]
        missed = (error.square().sum(-1) * ~batch.is_first[:, 1:]).mean()
        known = self.reward(states).log_prob(batch.reward), self.continuation(states).log_prob(~batch.termination + 0.0)
        return Loss(missed - sum(known).mean(), states.detach(), {"missed": missed.detach()})

    def updated(self) -> None:
        self.updates += 1
