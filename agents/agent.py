"""The agent protocol: anything that looks at a batch of observations and answers with a batch of action vectors."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.models.world_model import WorldModel
from worldvae.planning import Plan
from worldvae.types import Batch, Observation, State, TensorTree


@dataclass(frozen=True)
class Carry(TensorTree):
    """An agent's memory between two steps of the same environments.

    `action` is the action at the last row, `state` the estimated state of the world there (None for agents
    without an estimate), `plan` the plan of the action.
    """

    action: Float[Tensor, "batch action"]
    state: State | None = None
    plan: Plan | None = None


class Agent(ABC):
    """Chooses actions for several environments side by side."""

    name: str

    @property
    def device(self) -> torch.device:
        """The device of its random numbers."""
        return torch.device("cpu")

    @abstractmethod
    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[Tensor, "batch action"], Carry | None]:
        """Return actions, and the carry for the next step.

        Args:
            observation: the newest row of every environment, `[batch]`.
            is_first: which environments have just been reset.
            carry: the carry that the last call returned; None at the first step.
            generator: source of randomness, on `device`.
            explore: act to learn (sampled, noisy) rather than to score.
        """


class ModelAgent(Agent):
    """Base of the agents that act on a world model: filters the observations, then decides in latent space."""

    def __init__(self, model: WorldModel) -> None:
        self.model = model

    @property
    def device(self) -> torch.device:
        """The device of the model; the arguments of `act` may lie on another."""
        return self.model.device

    @abstractmethod
    def decide(
        self,
        state: State,
        keep: Float[Tensor, "batch"],
        previous: Plan | None,
        generator: torch.Generator | None,
        explore: bool,
    ) -> tuple[Float[Tensor, "batch action"], Plan | None]:
        """Return actions for posterior states `[batch]`, and their plan if there is one.

        `keep` is 0 where an episode has just begun, so that the previous plan is of another episode.
        """

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[Tensor, "batch action"], Carry | None]:
        """Filter one row (along the mode of q, or along draws when exploring), then decide."""
        size, is_first = is_first.shape[0], is_first.to(self.device)
        if carry is None:
            carry = Carry(torch.zeros(size, self.model.action_layout.size, device=self.device))
        carry = carry.to(self.device)
        row = Batch(
            observation.to(self.device).map(lambda x: x.unsqueeze(1)),
            carry.action.unsqueeze(1),
            torch.zeros_like(is_first, dtype=torch.float32).unsqueeze(1),
            torch.zeros_like(is_first).unsqueeze(1),
            is_first.unsqueeze(1),
        )
        # To score, the mode of q: an action then depends on its own observations alone, not on the rest of the batch.
        state = self.model.observe(row, carry.state, carry.action, generator, mode=not explore).posterior[:, 0]
        action, plan = self.decide(state, (~is_first).float(), carry.plan, generator, explore)
        return action, Carry(action, state, plan)
