"""A world whose future has two modes: a ball falls, and half-way down a gust carries it to one of two sides.

An episode is ROUNDS falls of PERIOD rows. In phase 0 of a round the ball is at the top, above the middle; in the last
phase it is on the ground, where a catcher moves by STEP * u for an action u in [-1, 1], within [-1, 1]. On the step out
of phase GUST a wind that nothing foretells picks the left or the right, each with probability 1/2, and carries the ball
by DRIFT a step, until it is SIDE away from the middle. The reward arrives with the row in which the ball lands,

    reward = max(0, 1 - (distance of ball and catcher / WIDTH)^2),

and is 0 in all other rows. When the catcher sees the wind, LATE steps are left, in which it gets LATE * STEP far: from
the middle neither side is in reach, and waiting there earns 1 - ((SIDE - LATE * STEP) / WIDTH)^2 = 0.12 whichever side
it is; a catcher that waits on one side earns 1 or 0. So no policy earns more than 1/2 a round (`optimal_values`), and
one that believes in the mean of both futures, a ball that falls straight, stays in the middle.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

ROUNDS, PERIOD, GUST = 3, 16, 9
STEP, DRIFT, SIDE, WIDTH = 0.08, 0.35, 0.7, 0.32
LATE = PERIOD - 2 - GUST
"""Steps from the first row that shows the wind to the landing."""

TIME_LIMIT = ROUNDS * PERIOD
RADIUS, HALF_WIDTH, THICKNESS = 0.12, 0.2, 0.09


def advance(
    state: Float[Tensor, "*batch 3"], action: Float[Tensor, "*batch 1"], wind: Float[Tensor, "*batch"]
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
    """Return the state one step later and the reward that arrives with it.

    Args:
        state: [catcher, height, ball]: two places in [-1, 1], and the phase of the round as a number from 1 (at the
            top) to -1 (on the ground).
        action: u.
        wind: only its sign is read, and only in phase GUST; with 0 there is no wind.
    """
    catcher, height, ball = state.unbind(dim=-1)
    phase = ((1 - height) * (PERIOD - 1) / 2).round()
    catcher = (catcher + STEP * action[..., 0].clamp(-1, 1)).clamp(-1, 1)
    side = torch.where(phase < GUST, 0.0, torch.where(phase > GUST, ball.sign(), wind.sign()))
    ball = (ball + DRIFT * side).clamp(-SIDE, SIDE)
    phase = torch.remainder(phase + 1, PERIOD)
    ball = torch.where(phase == 0, 0.0, ball)
    reward = torch.where(phase == PERIOD - 1, reward_of(ball - catcher), 0.0)
    return torch.stack([catcher, 1 - 2 * phase / (PERIOD - 1), ball], dim=-1), reward


def reward_of(distance: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return what a ball earns that lands in this distance of the catcher."""
    return (1 - (distance / WIDTH).square()).clamp(min=0)


def expert(state: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 1"]:
    """Return the action of an optimal policy: to the ball once it drifts, before that to the nearer side's reach."""
    catcher, _, ball = state.unbind(dim=-1)
    nearer = torch.where(catcher < 0, -1.0, 1.0)
    goal = torch.where(ball == 0, nearer * catcher.abs().clamp(min=SIDE - LATE * STEP + STEP / 2), SIDE * ball.sign())
    return ((goal - catcher) / STEP).clamp(-1, 1).unsqueeze(-1)


def optimal_values(cells: int = 50) -> Float64[np.ndarray, "step place"]:
    """Return the most that can be earned from each step of an episode on, by dynamic programming.

    Entry [t, i] belongs to row t, before the wind of a round is known (other rows are NaN), with the catcher at
    -1 + i / `cells`. Places and actions are on a grid of 1 / `cells`; with the default, a step is 4 cells, and the
    values are exact for all actions, too: a round is worth at most 1/2, because one place can be in reach of one side
    only, and the value 1/2 is attained from every place.

    Raises:
        ValueError: If STEP or SIDE is not a whole number of cells.
    """
    step, side = STEP * cells, SIDE * cells
    if abs(step - round(step)) > 1e-9 or abs(side - round(side)) > 1e-9:
        raise ValueError(f"cells={cells} must make {STEP} and {SIDE} whole numbers of cells, as 50 does")
    places = np.arange(-cells, cells + 1) / cells
    landed = [reward_of(torch.from_numpy(places - s * SIDE)).numpy() for s in (-1, 1)]
    values = np.full((TIME_LIMIT + 1, len(places)), np.nan)
    values[TIME_LIMIT] = 0.0
    for begin in reversed(range(0, TIME_LIMIT, PERIOD)):
        following = _best(values[begin + PERIOD], round(step))  # the step from the ground into the next round
        ends = [payoff + following for payoff in landed]
        for _ in range(LATE):
            ends = [_best(end, round(step)) for end in ends]
        now = (ends[0] + ends[1]) / 2
        for t in reversed(range(begin, begin + GUST + 1)):
            now = values[t] = _best(now, round(step))
    return values


def _best(after: Float64[np.ndarray, " place"], reach: int) -> Float64[np.ndarray, " place"]:
    """Return the largest value within `reach` cells of each place."""
    padded = np.pad(after, reach, constant_values=-np.inf)
    windows: np.ndarray = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.asarray(windows.max(axis=-1))


BEST_RETURN = ROUNDS / 2
"""What an optimal policy earns in an episode on average, from every start (equal to `optimal_values()[0]`)."""

MIDDLE_RETURN = ROUNDS * (1 - ((SIDE - LATE * STEP) / WIDTH) ** 2)
"""What a policy earns that waits in the middle until it sees the wind."""


def draw(state: Float64[np.ndarray, "*batch 3"], side: int = 32) -> UInt8[np.ndarray, "*batch side side 3"]:
    """Return frames of `side` x `side` pixels: the ball in red, the catcher on the ground in green, with soft rims."""
    catcher, height, ball = (state[..., i, None, None] for i in range(3))
    middle, reach = (side - 1) / 2, side / (2 * (1 + HALF_WIDTH))
    across = ((np.arange(side) - middle) / reach)[None, :]
    lift = reach * (1 + HALF_WIDTH) - reach * RADIUS - 0.5  # so that the whole ball shows at the top and on the ground
    down = (np.arange(side) - middle)[:, None]
    distance = np.hypot(reach * (across - ball), down + lift * height)
    bar_x = np.clip(reach * (HALF_WIDTH - np.abs(across - catcher)) + 0.5, 0, 1)
    bar_y = np.clip(reach * THICKNESS - np.abs(down - (middle - reach * THICKNESS)) + 0.5, 0, 1)
    frames = np.zeros((*distance.shape, 3), np.uint8)
    frames[..., 0] = 255 * np.clip(reach * RADIUS - distance + 0.5, 0, 1)
    frames[..., 1] = 255 * bar_x * bar_y
    return frames


class WindEnv(gym.Env[Any, Any]):
    """The world of this module: `worldvae/Wind-v0`.

    It observes the vector [catcher, height, ball], which is the true state (also `info["state"]`, in float64), and
    renders frames of `side` x `side` pixels. Nothing terminates it.

    Args:
        side: Height and width of the frames.
        render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (the declaration is Gymnasium's)

    def __init__(self, side: int = 32, render_mode: str | None = None) -> None:
        self.side, self.render_mode = side, render_mode
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.state = np.array([0.0, 1.0, 0.0])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Put the catcher somewhere, and the ball at the top."""
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-1, 1), 1.0, 0.0])
        return self._observation(), {"state": self.state.copy()}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the catcher, and let the ball fall."""
        wind = torch.tensor(1.0 if self.np_random.random() < 0.5 else -1.0, dtype=torch.float64)
        move = torch.as_tensor(np.asarray(action, np.float64))
        state, reward = advance(torch.from_numpy(self.state), move, wind)
        self.state = state.numpy()
        return self._observation(), float(reward), False, False, {"state": self.state.copy()}

    def render(self) -> Any:
        """Return the frame, (side, side, 3) uint8."""
        return draw(self.state, self.side)

    def _observation(self) -> np.ndarray:
        return self.state.astype(np.float32)


def register() -> None:
    """Make the id known to Gymnasium."""
    id = "worldvae/Wind-v0"
    if id not in gym.registry:
        gym.register(id, "worldvae.envs.worlds.wind:WindEnv", max_episode_steps=TIME_LIMIT)
