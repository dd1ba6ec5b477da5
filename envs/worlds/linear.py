"""A world of which everything is known: linear dynamics, Gaussian noise, quadratic cost.

    z_1 ~ N(m0, P0),    x_t = C z_t + N(0, R),    z_{t+1} = A z_t + B u_t + N(0, Q),    u_t = reach · action,

and the reward that arrives with x_{t+1} is -(z' W z + u_t' U u_t) with z = z_{t+1}, W = diag(1, 0.1), U = 0.01: a
policy is paid for where it leads. Matrices, exact likelihoods, posteriors and the optimal controller are those of
`worldvae.exact`: on average no policy can have less than `exact.lqg_cost` to pay a step (`exact.lqr_cost` if it sees
the state) once the random start is forgotten.
"""

from typing import Any

import gymnasium as gym
import numpy as np

from worldvae.exact import COST, named_world

TIME_LIMIT = 50


class LinearGaussianEnv(gym.Env[Any, Any]):
    """The world of this module: `worldvae/LinearGaussian-v0`.

    It observes x, one number, or with `full_state` z itself, two numbers without noise. Nothing terminates it.
    `info["state"]` is z.

    Args:
        world: "stiff" (a position that is hardly disturbed) or "mild".
        full_state: Whether z is shown in place of x.
        reach: The action u that the entry 1 of an action vector stands for. The optimal controller of the stiff world
            acts with a standard deviation of 0.9 (0.6 if it sees the state), that of the mild one with 3.0 (2.4).
        render_mode: None.

    Raises:
        ValueError: If there is no such world, or `reach` is not positive.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 (the declaration is Gymnasium's)

    def __init__(
        self, world: str = "stiff", full_state: bool = False, reach: float = 10.0, render_mode: str | None = None
    ) -> None:
        if not reach > 0:
            raise ValueError(f"reach={reach} must be positive: it is the action that 1 stands for")
        self.world, self.full_state, self.reach, self.render_mode = named_world(world), full_state, reach, render_mode
        self._a, self._b, self._c = (m.numpy() for m in (self.world.A, self.world.B, self.world.C))
        # Roots of the covariances, so that a step costs products of small matrices and no factorisation.
        self._start, self._disturb, self._noise = (
            np.linalg.cholesky(m.numpy()) for m in (self.world.P0, self.world.Q, self.world.R)
        )
        self._state_cost, self._action_cost = COST.state.numpy(), COST.action.numpy()
        size, actions = self._b.shape if full_state else (len(self._c), self._b.shape[1])
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (actions,), np.float32)
        self.state = self.world.m0.numpy().copy()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw the first state."""
        super().reset(seed=seed)
        self.state = self.world.m0.numpy() + self._draw(self._start)
        return self._observation(), {"state": self.state.copy()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act, and pay for the action and for the state that it led to."""
        u = self.reach * np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        self.state = self._a @ self.state + self._b @ u + self._draw(self._disturb)
        cost = self.state @ self._state_cost @ self.state + u @ self._action_cost @ u
        return self._observation(), -float(cost), False, False, {"state": self.state.copy()}

    def _observation(self) -> np.ndarray:
        shown = self.state if self.full_state else self._c @ self.state + self._draw(self._noise)
        return shown.astype(np.float32)

    def _draw(self, root: np.ndarray) -> np.ndarray:
        return np.asarray(root @ self.np_random.standard_normal(len(root)))


def register() -> None:
    """Make the id known to Gymnasium."""
    id = "worldvae/LinearGaussian-v0"
    if id not in gym.registry:
        gym.register(id, "worldvae.envs.worlds.linear:LinearGaussianEnv", max_episode_steps=TIME_LIMIT)
