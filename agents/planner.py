"""Model-predictive control: plan, take the first action, look, plan again."""

from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.agents.agent import ModelAgent
from worldvae.planning import CEMConfig, MPPIConfig, Plan, Value, cem, discounted_return, mppi
from worldvae.types import State
from worldvae.world_model import WorldModel


class PlannerAgent(ModelAgent):
    """Plans in latent space at every step, starting from the plan of the step before.

    Args:
        model: the world model.
        config: numbers of the planner, whose type says which one it is.
        value: of the states at the end of a plan; used where `config.value` is set.
        noise: standard deviation of Gaussian noise on continuous actions when exploring.

    Raises:
        ValueError: If `config.value` is set and there is no value.
    """

    def __init__(
        self,
        model: WorldModel,
        config: CEMConfig | MPPIConfig | None = None,
        value: Value | None = None,
        noise: float = 0.3,
    ) -> None:
        super().__init__(model)
        self.config = config or CEMConfig()
        if self.config.value and value is None:
            raise ValueError(f"{self.config} asks for the value of states, and no value was given")
        self.name = "mppi" if isinstance(self.config, MPPIConfig) else "cem"
        self.value = value if self.config.value else None
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
        objective = partial(discounted_return, discount=self.config.discount, value=self.value)
        with self.model.autocast():
            if isinstance(self.config, MPPIConfig):
                plan = mppi(self.model, state, objective, layout, self.config, generator, plan, keep)
            else:
                plan = cem(self.model, state, objective, layout, self.config, generator, plan, keep)
        action = plan.actions[:, 0]
        if explore and layout.continuous:
            box = action[:, : layout.continuous]
            noise = torch.randn(box.shape, device=box.device, generator=generator)
            action = torch.cat([(box + self.noise * noise).clamp(-1, 1), action[:, layout.continuous :]], dim=-1)
        return action, plan
