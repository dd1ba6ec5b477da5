"""Gymnasium's pendulum without the arrow that shows the torque: a frame then says nothing of the last action.

The arrow of `Pendulum-v1` gives the last action away: a model that infers actions from frames reads the arrow and needs
to know nothing of the motion.
"""

from typing import Any

import gymnasium as gym
from gymnasium.envs.classic_control.pendulum import PendulumEnv

TIME_LIMIT = 200


class PlainPendulumEnv(PendulumEnv):
    """The world of this module: `worldvae/Pendulum-v0`, with the dynamics, rewards and arguments of `Pendulum-v1`."""

    def render(self) -> Any:
        """Return the frame, (500, 500, 3) uint8, as if no torque had been applied."""
        torque, self.last_u = self.last_u, None
        try:
            return super().render()  # type: ignore[no-untyped-call]
        finally:
            self.last_u = torque


def register() -> None:
    """Make the id known to Gymnasium."""
    id = "worldvae/Pendulum-v0"
    if id not in gym.registry:
        gym.register(id, "worldvae.envs.worlds.plain_pendulum:PlainPendulumEnv", max_episode_steps=TIME_LIMIT)
