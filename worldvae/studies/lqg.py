"""The optimal controller of the linear-Gaussian world as an agent: a Kalman filter, and linear feedback on its mean."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.agents import Agent, Carry
from worldvae.envs.worlds.linear import LinearGaussianEnv
from worldvae.errors import UserError
from worldvae.exact import LinearGaussian, lqr_gain
from worldvae.types import Observation, VectorState


class LQGAgent(Agent):
    """Acts optimally on `worldvae/LinearGaussian-v0`, from x alone or, if it is shown (`full_state`), from z.

    Once the random start is forgotten its mean cost is `exact.lqg_cost` (from z: `exact.lqr_cost`) a step. The carried
    state is [mean, covariance] of p(z_t | x_1 .. x_t), in float64.

    Args:
        world: the matrices of the world.
        reach: the action u that 1 stands for.

    Reference: Åström 1970, "Introduction to Stochastic Control Theory", chapter 8.
    """

    name = "lqg"

    def __init__(self, world: LinearGaussian, reach: float) -> None:
        self.world, self.reach, self.gain = world, reach, lqr_gain(world)

    @classmethod
    def of(cls, env: LinearGaussianEnv) -> "LQGAgent":
        """Return the optimal controller of an environment."""
        return cls(env.world, env.reach)

    def act(
        self,
        observation: Observation,
        is_first: Bool[Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[Tensor, "batch action"], Carry | None]:
        """Filter one row and return -L E[z], within reach.

        Raises:
            UserError: If the observed vector is neither x nor z.
        """
        size, seen = len(self.world.m0), observation.vector
        if seen is None or seen.shape[-1] not in (size, len(self.world.C)):
            raise UserError(
                "the optimal controller reads the vector of worldvae/LinearGaussian-v0: give env.obs=state."
            )
        if seen.shape[-1] == size:
            mean, covariance = seen.double(), self.world.Q.new_zeros(len(seen), size, size)
        else:
            mean, covariance = self._update(seen.double(), *self._predicted(is_first, carry))
        action = (-mean @ self.gain.mT / self.reach).clamp(-1, 1)
        state = VectorState(torch.cat([mean, covariance.flatten(1)], dim=-1))
        return action.float(), Carry(action.float(), state)

    def _predicted(self, is_first: Bool[Tensor, "batch"], carry: Carry | None) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of p(z_t | x_1 .. x_{t-1}), which is p(z_1) where an episode begins."""
        world, size = self.world, len(self.world.m0)
        mean, covariance = world.m0.expand(len(is_first), -1), world.P0.expand(len(is_first), -1, -1)
        if carry is None or carry.state is None:
            return mean, covariance
        known = carry.state.features
        moved = known[:, :size] @ world.A.mT + self.reach * carry.action.double() @ world.B.mT
        spread = world.A @ known[:, size:].unflatten(1, (size, size)) @ world.A.mT + world.Q
        first = is_first.unsqueeze(-1)
        return torch.where(first, mean, moved), torch.where(first.unsqueeze(-1), covariance, spread)

    def _update(self, seen: Tensor, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and covariance given x, too, in Joseph's form (as `exact.kalman.update`, with a batch)."""
        world = self.world
        gain = torch.linalg.solve(world.C @ covariance @ world.C.mT + world.R, world.C @ covariance).mT
        mean = mean + (gain @ (seen - mean @ world.C.mT).unsqueeze(-1)).squeeze(-1)
        rest = torch.eye(len(world.m0), dtype=covariance.dtype) - gain @ world.C
        return mean, rest @ covariance @ rest.mT + gain @ world.R @ gain.mT
