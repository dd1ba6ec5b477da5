"""The uniform agent: the floor for all other agents."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.agents.agent import Agent, Carry
from worldvae.planning import uniform_actions
from worldvae.types import ActionLayout, Observation


class RandomAgent(Agent):
    """Draws every action uniformly.

    Args:
        layout: shape of the action vector.
        persistence: probability of repeating the last action. Each action is still uniform, but episodes get further
            than with a new action at every step, and show what pushing against a wall does.
    """

    name = "random"

    def __init__(self, layout: ActionLayout, persistence: float = 0.0) -> None:
        self.layout, self.persistence = layout, persistence

    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[Tensor, "batch action"], Carry | None]:
        """Return uniform actions; the observation is not used, and only the last action is remembered."""
        size, device = len(is_first), is_first.device if generator is None else generator.device
        action = uniform_actions(self.layout, (size,), device, generator)
        if not self.persistence:
            return action, None
        if carry is not None:
            again = torch.rand(size, device=device, generator=generator) < self.persistence
            again &= ~is_first.to(device)
            action = torch.where(again.unsqueeze(1), carry.action.to(device), action)
        return action, Carry(action)
