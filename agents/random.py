"""The uniform agent: the floor every other agent is measured against."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.agents.agent import Agent, Carry
from worldvae.planning import uniform_actions
from worldvae.types import ActionLayout, Observation


class RandomAgent(Agent):
    """Draws every action uniformly."""

    name = "random"

    def __init__(self, layout: ActionLayout) -> None:
        self.layout = layout

    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[Tensor, "batch action"], Carry | None]:
        """Return uniform actions; nothing is looked at or remembered."""
        device = is_first.device if generator is None else generator.device
        return uniform_actions(self.layout, tuple(is_first.shape), device, generator), None
