"""A world in which a single pixel decides what is earned: a walker looks for a dot among large moving discs.

The walker moves by STEP * u for an action u in [-1, 1] for each axis, within [-1, 1] x [-1, 1], and the reward is
exp(-|walker - target|^2 / (2 * WIDTH^2)), between 0 and 1. The target, at another place in each episode, shows as one
pixel. Two discs of about a hundred pixels each (in frames of 32 x 32) fly through the field; their centres bounce off
its border. They matter to nothing but the size of errors of predicted frames, in which the target hardly counts.

The reward falls with the distance along each axis, so nothing beats full speed along both until the target is reached:
`expert` is optimal from every start, and `best_return` what it earns, exactly.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

STEP, WIDTH = 0.1, 0.2
TIME_LIMIT = 50
SPEED = (0.04, 0.08)
INNER = 0.8
WALKER_RADIUS, DISC_RADIUS = 0.12, 0.4
DISCS = 2


def advance(
    state: Float[Tensor, "*batch 12"], action: Float[Tensor, "*batch 2"]
) -> tuple[Float[Tensor, "*batch 12"], Float[Tensor, "*batch"]]:
    """Return the state one step later and the reward that arrives with it.

    Args:
        state: [walker, target, places of both discs, their velocities], each [x, y].
        action: u for each axis.
    """
    walker, target, places, speeds = state.split([2, 2, 2 * DISCS, 2 * DISCS], dim=-1)
    walker = (walker + STEP * action.clamp(-1, 1)).clamp(-1, 1)
    places = places + speeds
    beyond = places.abs() > 1
    speeds = torch.where(beyond, -speeds, speeds)
    places = torch.where(beyond, 2 * places.sign() - places, places)
    reward = torch.exp(-(walker - target).square().sum(dim=-1) / (2 * WIDTH**2))
    return torch.cat([walker, target, places, speeds], dim=-1), reward


def expert(state: Float[Tensor, "*batch 12"]) -> Float[Tensor, "*batch 2"]:
    """Return the optimal action: straight along both axes, and stay on the target."""
    return ((state[..., 2:4] - state[..., :2]) / STEP).clamp(-1, 1)


def best_return(state: Float64[Tensor, "*batch 12"], steps: int = TIME_LIMIT) -> Float64[Tensor, "*batch"]:
    """Return the most that can be earned in the next steps, exactly; nothing is random."""
    away = (state[..., None, 2:4] - state[..., None, :2]).abs()
    walked = STEP * torch.arange(1, steps + 1, dtype=state.dtype, device=state.device)
    left = (away - walked[:, None]).clamp(min=0)
    total: Tensor = torch.exp(-left.square().sum(dim=-1) / (2 * WIDTH**2)).sum(dim=-1)
    return total


def draw(state: Float64[np.ndarray, "*batch 12"], side: int = 32) -> UInt8[np.ndarray, "*batch side side 3"]:
    """Return frames of `side` x `side` pixels: the walker in red, the target in green, the discs in blue.

    Walker and discs have soft rims; the target fills the pixel in which it lies, which `pixel_of` gives.
    """
    middle, reach = (side - 1) / 2, side / (2 * (1 + WALKER_RADIUS))
    grid = (np.arange(side) - middle) / reach

    def disc(place: np.ndarray, radius: float) -> np.ndarray:
        distance = np.hypot(grid[:, None] - place[..., 1, None, None], grid[None, :] - place[..., 0, None, None])
        return np.asarray(np.clip(reach * (radius - distance) + 0.5, 0, 1))

    frames = np.zeros((*state.shape[:-1], side, side, 3), np.uint8)
    frames[..., 0] = 255 * disc(state[..., :2], WALKER_RADIUS)
    blue = [disc(state[..., 4 + 2 * i : 6 + 2 * i], DISC_RADIUS) for i in range(DISCS)]
    frames[..., 2] = 200 * np.maximum(*blue)
    column, row = np.moveaxis(pixel_of(state[..., 2:4], side), -1, 0)[..., None, None]
    at = (np.arange(side)[:, None] == row) & (np.arange(side)[None, :] == column)
    frames[..., 1] = 255 * at
    return frames


def pixel_of(place: Float64[np.ndarray, "*batch 2"], side: int) -> np.ndarray:
    """Return [column, row] of the pixel in which a place lies."""
    return np.rint((side - 1) / 2 + side / (2 * (1 + WALKER_RADIUS)) * place).astype(np.int64)


class DetailEnv(gym.Env[Any, Any]):
    """The world of this module: `worldvae/Detail-v0`.

    It observes the true state, twelve numbers (also `info["state"]`, in float64), and renders frames of `side` x
    `side` pixels. Nothing terminates it.

    Args:
        side: Height and width of the frames.
        render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (the declaration is Gymnasium's)

    def __init__(self, side: int = 32, render_mode: str | None = None) -> None:
        self.side, self.render_mode = side, render_mode
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (4 + 4 * DISCS,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.state = np.zeros(4 + 4 * DISCS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Put everything somewhere; the target lies in the middle of a pixel, so that it fills that one alone."""
        super().reset(seed=seed)
        draws, reach = self.np_random, self.side / (2 * (1 + WALKER_RADIUS))
        target = (pixel_of(draws.uniform(-INNER, INNER, 2), self.side) - (self.side - 1) / 2) / reach
        speeds = draws.uniform(*SPEED, 2 * DISCS) * draws.choice([-1.0, 1.0], 2 * DISCS)
        self.state = np.concatenate([draws.uniform(-1, 1, 2), target, draws.uniform(-1, 1, 2 * DISCS), speeds])
        return self._observation(), {"state": self.state.copy()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the walker and the discs."""
        state, reward = advance(torch.from_numpy(self.state), torch.as_tensor(np.asarray(action, np.float64)))
        self.state = state.numpy()
        return self._observation(), float(reward), False, False, {"state": self.state.copy()}

    def render(self) -> Any:
        """Return the frame, (side, side, 3) uint8."""
        return draw(self.state, self.side)

    def _observation(self) -> np.ndarray:
        return self.state.astype(np.float32)


def register() -> None:
    """Make the id known to Gymnasium."""
    id = "worldvae/Detail-v0"
    if id not in gym.registry:
        gym.register(id, "worldvae.envs.worlds.detail:DetailEnv", max_episode_steps=TIME_LIMIT)
