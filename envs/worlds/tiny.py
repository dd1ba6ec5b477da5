"""A small, fast world with known dynamics: a disc that is to be moved onto a target.

State: position, velocity and target, each one number per axis, the field being [-1, 1]. An action u in [-1, 1] per
axis pushes the disc,

    velocity' = DAMPING · velocity + GAIN · u,      position' = position + velocity',

and the reward is exp(-|position' - target|² / (2 · WIDTH²)), between 0 and 1. At the border the disc stops, or with
`terminate` the episode ends without reward. Positions show in a frame, velocities only in two.

Over an episode of 50 steps with one axis (two axes), a random policy earns 15.8 (4.9) on average and `feedback` 48.1
(47.0), which is within 0.1 of what no policy can exceed: the return of rushing to the target and stopping for free.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float64, UInt8

DAMPING, GAIN, WIDTH = 0.8, 0.05, 0.25
TIME_LIMIT = 50


def matrices(axes: int = 1) -> tuple[Float64[np.ndarray, "n n"], Float64[np.ndarray, "n axes"]]:
    """Return (A, B) of x' = A x + B u with x = [position, velocity]: the dynamics away from the border."""
    one = np.eye(axes)
    return np.block([[one, DAMPING * one], [0 * one, DAMPING * one]]), np.concatenate([GAIN * one, GAIN * one])


def advance(
    position: Float64[np.ndarray, "*batch axes"],
    velocity: Float64[np.ndarray, "*batch axes"],
    action: Float64[np.ndarray, "*batch axes"],
) -> tuple[Float64[np.ndarray, "*batch axes"], Float64[np.ndarray, "*batch axes"]]:
    """Return position and velocity one step later, as if there were no border."""
    velocity = DAMPING * velocity + GAIN * action
    return position + velocity, velocity


def reward_of(
    position: Float64[np.ndarray, "*batch axes"], target: Float64[np.ndarray, "*batch axes"]
) -> Float64[np.ndarray, "*batch"]:
    """Return the reward for being at `position`, 1 on the target."""
    return np.asarray(np.exp(-((position - target) ** 2).sum(-1) / (2 * WIDTH**2)))


def feedback(
    position: Float64[np.ndarray, "*batch axes"],
    velocity: Float64[np.ndarray, "*batch axes"],
    target: Float64[np.ndarray, "*batch axes"],
) -> Float64[np.ndarray, "*batch axes"]:
    """Return the action of a linear feedback policy, clipped to [-1, 1]: close to the best there is."""
    action: np.ndarray = np.clip(16.0 * (target - position) - 20.0 * velocity, -1.0, 1.0)
    return action


def draw(
    position: Float64[np.ndarray, "*batch axes"], target: Float64[np.ndarray, "*batch axes"], side: int = 32
) -> UInt8[np.ndarray, "*batch side side 3"]:
    """Return frames of `side` × `side` pixels: the disc in red, the target in green, both with soft rims.

    The first axis runs to the right, the second (0 if there is only one) downwards.
    """
    places = np.stack([position, target], axis=-2)
    middle = (side - 1) / 2
    radius = 0.12 * side
    grid = np.arange(side, dtype=np.float32)
    # the field is drawn a radius smaller than the frame, so that the whole disc shows at the border too
    centre = (middle + places * (middle - radius)).astype(np.float32)
    x = (grid - centre[..., 0, None]) ** 2
    y = (grid - centre[..., 1, None]) ** 2 if places.shape[-1] == 2 else np.broadcast_to((grid - middle) ** 2, x.shape)
    distance = np.sqrt(y[..., :, None] + x[..., None, :])
    coverage = np.clip(radius + 0.5 - distance, 0.0, 1.0)
    frames = np.zeros((*coverage.shape[:-3], side, side, 3), np.uint8)
    frames[..., 0] = 255 * coverage[..., 0, :, :]
    frames[..., 1] = 255 * coverage[..., 1, :, :]
    return frames


class TinyEnv(gym.Env[Any, Any]):
    """The world of this module: `worldvae/Tiny-v0` (actions in [-1, 1]) and `worldvae/TinyDiscrete-v0`.

    It observes the vector [position, velocity, target] and renders frames of `side` × `side` pixels.

    Args:
        axes: 1 (left and right) or 2.
        discrete: Whether actions are stay, left, right (and up, down with two axes).
        terminate: Whether the episode ends (terminated, no reward) when the disc leaves the field.
        side: Height and width of the frames.
        render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 (the declaration is Gymnasium's)

    def __init__(
        self,
        axes: int = 1,
        discrete: bool = False,
        terminate: bool = False,
        side: int = 32,
        render_mode: str | None = None,
    ) -> None:
        self.axes, self.terminate, self.side, self.render_mode = axes, terminate, side, render_mode
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (3 * axes,), np.float32)
        self.pushes = (
            np.concatenate([np.zeros((1, axes)), *([-row, row] for row in np.eye(axes))]) if discrete else None
        )
        self.action_space = (
            gym.spaces.Discrete(1 + 2 * axes) if discrete else gym.spaces.Box(-1.0, 1.0, (axes,), np.float32)
        )
        self.position, self.velocity, self.target = np.zeros((3, axes))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Put the disc and the target somewhere; the disc is at rest."""
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.8, 0.8, self.axes)
        self.target = self.np_random.uniform(-0.6, 0.6, self.axes)
        self.velocity = np.zeros(self.axes)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Push the disc."""
        push = np.clip(action, -1.0, 1.0).astype(np.float64) if self.pushes is None else self.pushes[int(action)]
        position, velocity = advance(self.position, self.velocity, push)
        outside = np.abs(position) > 1.0
        self.position, self.velocity = np.clip(position, -1.0, 1.0), np.where(outside, 0.0, velocity)
        left = self.terminate and bool(outside.any())
        reward = 0.0 if left else float(reward_of(self.position, self.target))
        return self._observation(), reward, left, False, {}

    def render(self) -> Any:
        """Return the frame, (side, side, 3) uint8."""
        return draw(self.position, self.target, self.side)

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.position, self.velocity, self.target]).astype(np.float32)


def register() -> None:
    """Make the two ids known to Gymnasium."""
    for id, discrete in (("worldvae/Tiny-v0", False), ("worldvae/TinyDiscrete-v0", True)):
        if id not in gym.registry:
            gym.register(
                id, "worldvae.envs.worlds.tiny:TinyEnv", max_episode_steps=TIME_LIMIT, kwargs={"discrete": discrete}
            )
