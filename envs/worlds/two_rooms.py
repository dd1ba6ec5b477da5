"""Two rooms and a door: a world without reward, in which places are to be reached.

State: the position of a disc in the field [-1, 1] x [-1, 1], and the height of the door. The wall between the rooms is
the strip |x| < WALL, which the disc's centre can enter only where |y - door| <= DOOR. An action u in [-1, 1] for each
axis moves the centre by MAX_STEP * u, first along x and then along y, each as far as walls and border let it: an
obstacle stops the disc, and along a wall it slides. The straight way into the other room mostly ends at the wall, and
the way through the door leads away from the goal first.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, UInt8
from torch import Tensor

WALL, DOOR = 0.15, 0.2
MAX_STEP = 0.2
DISC_RADIUS = 0.1
DOOR_HEIGHT = 0.4
TIME_LIMIT = 50


def advance(
    position: Float[Tensor, "*batch 2"], action: Float[Tensor, "*batch 2"], door: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 2"]:
    """Return the position one step later; gradients reach position and action wherever nothing is in the way."""
    (x, y), (right, down) = position.unbind(-1), (MAX_STEP * action.clamp(-1, 1)).unbind(-1)
    least, most = -torch.ones_like(x), torch.ones_like(x)
    walled = (y < door - DOOR) | (y > door + DOOR)  # and not |y - door| > DOOR, which rounding may make of the frame
    x = (x + right).clamp(torch.where(walled & (x > 0), WALL, least), torch.where(walled & (x < 0), -WALL, most))
    inside = x.abs() < WALL
    y = (y + down).clamp(torch.where(inside, door - DOOR, least), torch.where(inside, door + DOOR, most))
    return torch.stack([x, y], dim=-1)


def free(position: Float[Tensor, "*batch 2"], door: Float[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
    """Return where the centre of the disc can be."""
    x, y = position.unbind(-1)
    return (position.abs() <= 1).all(dim=-1) & ((x.abs() >= WALL) | ((y >= door - DOOR) & (y <= door + DOOR)))


def draw(
    position: Float64[np.ndarray, "*batch 2"], door: Float64[np.ndarray, "*batch"], side: int = 32
) -> UInt8[np.ndarray, "*batch side side 3"]:
    """Return frames of `side` x `side` pixels: the disc in red, the wall in blue, both with soft rims.

    x runs to the right, y downwards. The wall is drawn thinner, and its door wider, by the radius of the disc.
    """
    middle, reach = (side - 1) / 2, side / (2 * (1 + DISC_RADIUS))
    place = (np.arange(side) - middle) / reach  # of every pixel, in the field
    off = place - position[..., :, None]
    distance = np.hypot(off[..., 1, :, None], off[..., 0, None, :])
    across = np.clip(reach * (WALL - DISC_RADIUS - np.abs(place)) + 0.5, 0, 1)
    beside = np.clip(reach * (np.abs(place - door[..., None]) - DOOR - DISC_RADIUS) + 0.5, 0, 1)
    frames = np.zeros((*distance.shape, 3), np.uint8)
    frames[..., 0] = 255 * np.clip(reach * (DISC_RADIUS - distance) + 0.5, 0, 1)
    frames[..., 2] = 255 * (beside[..., :, None] * across)
    return frames


class TwoRoomsEnv(gym.Env[Any, Any]):
    """The world of this module: `worldvae/TwoRooms-v0`.

    It observes the vector [position], with `random_door` [position, door], and renders frames of `side` x `side`
    pixels. Episodes begin anywhere, `reset(options={"position": (x, y), "door": y})` begins one at a given place;
    nothing terminates them, and nothing is ever earned.

    Args:
        random_door: Whether each episode has its door at another height; it is at DOOR_HEIGHT otherwise.
        side: Height and width of the frames.
        render_mode: "rgb_array" or None.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (the declaration is Gymnasium's)

    def __init__(self, random_door: bool = False, side: int = 32, render_mode: str | None = None) -> None:
        self.random_door, self.side, self.render_mode = random_door, side, render_mode
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (3 if random_door else 2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.position, self.door = np.full(2, -0.5), DOOR_HEIGHT

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Put the disc somewhere.

        Raises:
            ValueError: If `options` puts it where it cannot be, or has other entries than position and door.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := set(options) - {"position", "door"}:
            raise ValueError(f"reset has no option {', '.join(sorted(unknown))}: there are position and door")
        top = 1 - DOOR - DISC_RADIUS  # up to there the door is drawn as wide as it is
        self.door = float(self.np_random.uniform(-top, top)) if self.random_door else DOOR_HEIGHT
        self.door = float(options.get("door", self.door))
        self.position = self.np_random.uniform(-1, 1, 2)
        while not self._fits():
            self.position = self.np_random.uniform(-1, 1, 2)
        if "position" in options:
            self.place(options["position"])
        return self.observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move the disc."""
        move = torch.as_tensor(np.asarray(action, np.float64))
        self.position = advance(torch.from_numpy(self.position), move, self._door()).numpy()
        return self.observe(), 0.0, False, False, {}

    def render(self) -> Any:
        """Return the frame, (side, side, 3) uint8."""
        return draw(self.position, np.asarray(self.door), self.side)

    def place(self, position: Any) -> None:
        """Put the disc at a place of this episode's rooms.

        Raises:
            ValueError: If it cannot be there.
        """
        self.position = np.array(position, np.float64)
        if self.position.shape != (2,) or not self._fits():
            raise ValueError(f"position={position} lies in the wall or outside of the field, which ends at -1 and 1")

    def observe(self) -> np.ndarray:
        """Return the observation of the present state."""
        entries = [*self.position, self.door] if self.random_door else self.position
        return np.asarray(entries, np.float32)

    def _door(self) -> Tensor:
        return torch.tensor(self.door, dtype=torch.float64)

    def _fits(self) -> bool:
        return bool(free(torch.from_numpy(self.position), self._door()))


def register() -> None:
    """Make the id known to Gymnasium."""
    id = "worldvae/TwoRooms-v0"
    if id not in gym.registry:
        gym.register(id, "worldvae.envs.worlds.two_rooms:TwoRoomsEnv", max_episode_steps=TIME_LIMIT)
