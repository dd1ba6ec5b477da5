"""The true dynamics of the study's tasks, batched in torch, and a good policy for each that sees the true state."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.envs import EnvConfig, WorldEnv, detail, wind
from worldvae.envs.worlds.linear import LinearGaussianEnv
from worldvae.errors import UserError, near_miss
from worldvae.exact import COST, lqr_gain


class TrueWorld(ABC):
    """What is known of an environment: its states, one step, and how to act well.

    Attributes:
        names: of the entries of `truth`.
        noises: standard normal numbers that a step needs.
    """

    names: tuple[str, ...]
    noises: ClassVar[int] = 0

    @abstractmethod
    def step(
        self,
        state: Float[Tensor, "*batch state"],
        action: Float[Tensor, "*batch action"],
        noise: Float[Tensor, "*batch noise"],
    ) -> tuple[Float[Tensor, "*batch state"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Return the state one environment step later, the reward that arrives with it, and whether it is terminal.

        Args:
            state: true states.
            action: action vectors, in [-1, 1] or one-hot.
            noise: `noises` numbers for each; zeros stand for the mean of what is random.
        """

    @abstractmethod
    def expert(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch action"]:
        """Return what a good policy does."""

    def state(self, env: WorldEnv) -> Float[Tensor, " state"]:
        """Return the true state of an environment, in float64."""
        inner: Any = env.env.unwrapped
        return torch.from_numpy(np.array(inner.state, np.float64))

    def truth(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch truth"]:
        """Return a state as the environment's vector shows it: no angle jumps by a full turn."""
        return state

    def state_of(self, truth: Float[Tensor, "*batch truth"]) -> Float[Tensor, "*batch state"]:
        """Return the state that shows as such a vector."""
        return truth


class TruePendulum(TrueWorld):
    """`Pendulum-v1`, with or without its arrow: a state is [angle (0: upright), angular velocity].

    The expert pumps energy until that of the upright pendulum is reached, and holds the rod near the top.
    """

    names = ("cos", "sin", "velocity")

    def __init__(self, env: PendulumEnv) -> None:
        self.gravity, self.torque, self.fastest, self.dt = env.g, env.max_torque, env.max_speed, env.dt

    def step(
        self,
        state: Float[Tensor, "*batch state"],
        action: Float[Tensor, "*batch action"],
        noise: Float[Tensor, "*batch noise"],
    ) -> tuple[Float[Tensor, "*batch state"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Swing; the reward is for the state that the step begins with, as in Gymnasium."""
        angle, velocity = state.unbind(dim=-1)
        torque = self.torque * action[..., 0].clamp(-1, 1)
        wrapped = torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
        reward = -(wrapped.square() + 0.1 * velocity.square() + 0.001 * torque.square())
        velocity = velocity + self.dt * (1.5 * self.gravity * angle.sin() + 3 * torque)
        velocity = velocity.clamp(-self.fastest, self.fastest)
        following = torch.stack([angle + self.dt * velocity, velocity], dim=-1)
        return following, reward, torch.zeros_like(reward, dtype=torch.bool)

    def expert(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch action"]:
        """Pump energy, then hold."""
        angle, velocity = state.unbind(dim=-1)
        angle = torch.remainder(angle + torch.pi, 2 * torch.pi) - torch.pi
        missing = 1.5 * self.gravity * (1 - angle.cos()) - velocity.square() / 2
        pump = missing * torch.where(velocity < 0, -1.0, 1.0)
        hold = -(10 * angle + 2.5 * velocity)
        near = (angle.abs() < 0.5) & (velocity.abs() < 3)
        return (torch.where(near, hold, pump) / self.torque).clamp(-1, 1).unsqueeze(-1)

    def truth(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch truth"]:
        """Return [cos, sin, velocity]."""
        return torch.stack([state[..., 0].cos(), state[..., 0].sin(), state[..., 1]], dim=-1)

    def state_of(self, truth: Float[Tensor, "*batch truth"]) -> Float[Tensor, "*batch state"]:
        """Return [angle, velocity], the angle in [-pi, pi]."""
        return torch.stack([torch.atan2(truth[..., 1], truth[..., 0]), truth[..., 2]], dim=-1)


class TrueCartPole(TrueWorld):
    """`CartPole-v1`: a state is [place, its velocity, angle, its velocity]; the expert is a linear feedback's sign."""

    names = ("place", "velocity", "angle", "angular velocity")
    feedback = (1.0, 1.7, 18.7, 3.5)

    def __init__(self, env: CartPoleEnv) -> None:
        self.env = env
        self.alive, self.fallen = (0.0, -1.0) if env._sutton_barto_reward else (1.0, 1.0)

    def step(
        self,
        state: Float[Tensor, "*batch state"],
        action: Float[Tensor, "*batch action"],
        noise: Float[Tensor, "*batch noise"],
    ) -> tuple[Float[Tensor, "*batch state"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Push the cart; the integrator is Gymnasium's, explicit Euler."""
        env = self.env
        place, speed, angle, turn = state.unbind(dim=-1)
        force = torch.where(action[..., 1] > action[..., 0], env.force_mag, -env.force_mag)
        inertia = (force + env.polemass_length * turn.square() * angle.sin()) / env.total_mass
        arm = env.length * (4 / 3 - env.masspole * angle.cos().square() / env.total_mass)
        spin = (env.gravity * angle.sin() - angle.cos() * inertia) / arm
        push = inertia - env.polemass_length * spin * angle.cos() / env.total_mass
        dt = env.tau
        following = [place + dt * speed, speed + dt * push, angle + dt * turn, turn + dt * spin]
        out = following[0].abs() > env.x_threshold
        fallen = out | (following[2].abs() > env.theta_threshold_radians)
        reward = torch.where(fallen, self.fallen, self.alive).to(state.dtype)
        return torch.stack(following, dim=-1), reward, fallen

    def expert(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch action"]:
        """Push to where the pole leans, and so that the cart comes back to the middle."""
        right = (state @ state.new_tensor(self.feedback)) > 0
        return torch.stack([~right, right], dim=-1).to(state.dtype)


class TrueLinear(TrueWorld):
    """`worldvae/LinearGaussian-v0`: a state is z; the expert is the optimal feedback if z is seen."""

    noises = 2

    def __init__(self, env: LinearGaussianEnv) -> None:
        self.world, self.reach = env.world, env.reach
        self.names = tuple(f"z{i}" for i in range(len(self.world.m0)))
        self.gain, self.root = lqr_gain(self.world), torch.linalg.cholesky(self.world.Q)

    def step(
        self,
        state: Float[Tensor, "*batch state"],
        action: Float[Tensor, "*batch action"],
        noise: Float[Tensor, "*batch noise"],
    ) -> tuple[Float[Tensor, "*batch state"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Move, and pay."""
        u = self.reach * action.clamp(-1, 1)
        a, b, root, w, c = (m.to(state) for m in (self.world.A, self.world.B, self.root, COST.state, COST.action))
        state = state @ a.mT + u @ b.mT + noise @ root.mT
        cost = ((state @ w) * state).sum(dim=-1) + ((u @ c) * u).sum(dim=-1)
        return state, -cost, torch.zeros_like(cost, dtype=torch.bool)

    def expert(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch action"]:
        """Return -L z, within reach."""
        return (-state @ self.gain.to(state).mT / self.reach).clamp(-1, 1)


class TrueWind(TrueWorld):
    """`worldvae/Wind-v0`; the sign of the noise is the side, and without noise the ball falls straight, the mean."""

    names = ("catcher", "height", "ball")
    noises = 1

    def step(
        self,
        state: Float[Tensor, "*batch state"],
        action: Float[Tensor, "*batch action"],
        noise: Float[Tensor, "*batch noise"],
    ) -> tuple[Float[Tensor, "*batch state"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Fall."""
        following, reward = wind.advance(state, action, noise[..., 0])
        return following, reward, torch.zeros_like(reward, dtype=torch.bool)

    def expert(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch action"]:
        """Wait on one side; it is optimal."""
        return wind.expert(state)


class TrueDetail(TrueWorld):
    """`worldvae/Detail-v0`."""

    names = tuple(
        f"{what} {axis}" for what in ("walker", "target", "disc 0", "disc 1", "speed 0", "speed 1") for axis in "xy"
    )

    def step(
        self,
        state: Float[Tensor, "*batch state"],
        action: Float[Tensor, "*batch action"],
        noise: Float[Tensor, "*batch noise"],
    ) -> tuple[Float[Tensor, "*batch state"], Float[Tensor, "*batch"], Bool[Tensor, "*batch"]]:
        """Walk."""
        following, reward = detail.advance(state, action)
        return following, reward, torch.zeros_like(reward, dtype=torch.bool)

    def expert(self, state: Float[Tensor, "*batch state"]) -> Float[Tensor, "*batch action"]:
        """Walk to the target; it is optimal."""
        return detail.expert(state)


TRUE_WORLDS: dict[str, Callable[[Any], TrueWorld]] = {
    "Pendulum-v1": TruePendulum,
    "worldvae/Pendulum-v0": TruePendulum,
    "CartPole-v1": TrueCartPole,
    "worldvae/LinearGaussian-v0": TrueLinear,
    "worldvae/Wind-v0": lambda env: TrueWind(),
    "worldvae/Detail-v0": lambda env: TrueDetail(),
}
"""By the id of the environment: from its unwrapped instance, whose arguments count."""


def true_world(config: EnvConfig, env: WorldEnv) -> TrueWorld:
    """Return what is known of an environment that `config` describes.

    Raises:
        UserError: If its dynamics are not among those of this module.
    """
    if config.id not in TRUE_WORLDS:
        known = ", ".join(TRUE_WORLDS)
        raise UserError(
            f"the true dynamics of {config.id} are not known, those of {known} are.{near_miss(config.id, TRUE_WORLDS)}"
        )
    return TRUE_WORLDS[config.id](env.env.unwrapped)
