"""Model-predictive control: plan, take the first action, look, plan again."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.agents.agent import ModelAgent
from worldvae.planning import CEMConfig, Plan, cem, discounted_return
from worldvae.types import State
from worldvae.world_model import WorldModel


class PlannerAgent(ModelAgent):
    """Plans with CEM in latent space at every step, starting from the plan of the step before.

    Args:
        model: the world model.
        config: numbers of the planner.
        noise: standard deviation of Gaussian noise on continuous actions when exploring.
    """

    name = "cem"

    def __init__(self, model: WorldModel, config: CEMConfig | None = None, noise: float = 0.3) -> None:
        super().__init__(model)
        self.config = config or CEMConfig()
        self.noise = noise

    def decide(
        self,
        state: State,
        keep: Float[Tensor, "batch"],
        plan: Plan | None,
        generator: torch.Generator | None,
        explore: bool,
    ) -> tuple[Float[Tensor, "batch action"], Plan | None]:
        """Return the first action of a fresh plan, and the plan."""
        layout = self.model.action_layout
        objective = partial(discounted_return, discount=self.config.discount)
        plan = cem(self.model, state, objective, layout, self.config, generator, plan, keep)
        action = plan.actions[:, 0]
        if explore and layout.continuous:
            box = action[:, : layout.continuous]
            noise = torch.randn(box.shape, device=box.device, generator=generator)
            action = torch.cat([(box + self.noise * noise).clamp(-1, 1), action[:, layout.continuous :]], dim=-1)
        return action, plan
