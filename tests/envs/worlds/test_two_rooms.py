"""Two rooms: walls stop the disc, only the door connects the rooms, and episodes begin where they are told to."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae.commands.check_env import inspect_env
from worldvae.envs import EnvConfig, make
from worldvae.envs.worlds.two_rooms import (
    DOOR,
    DOOR_HEIGHT,
    MAX_STEP,
    WALL,
    TwoRoomsEnv,
    advance,
    draw,
    free,
)
from worldvae.errors import UserError

EDGE = st.floats(-1.0, 1.0, allow_subnormal=False)


def point(x: float, y: float) -> Tensor:
    return torch.tensor([x, y], dtype=torch.float64)


def number(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def crawl(start: list[float], action: list[float], door: float, steps: int = 400) -> list[float]:
    """Move in tiny steps, and omit those that lead to where the disc cannot be."""
    place = list(start)
    for axis in (0, 1):
        for _ in range(steps):
            following = list(place)
            following[axis] += MAX_STEP * action[axis] / steps
            if max(map(abs, following)) > 1 or (abs(following[0]) < WALL and abs(following[1] - door) > DOOR):
                break
            place = following
    return place


@given(x=EDGE, y=EDGE, right=EDGE, down=EDGE, height=st.floats(-0.7, 0.7))
@settings(max_examples=40, deadline=None)
def test_a_move_is_the_limit_of_tiny_moves_that_stop_at_walls(
    x: float, y: float, right: float, down: float, height: float
) -> None:
    position, action, door = point(x, y), point(right, down), number(height)
    if not bool(free(position, door)):
        return
    found = advance(position, action, door)
    assert bool(free(found, door))
    assert found.tolist() == pytest.approx(crawl([x, y], [right, down], height), abs=MAX_STEP / 400 + 1e-9)


def test_nobody_gets_through_the_wall_but_by_the_door() -> None:
    """A thousand random walks that begin in the left room."""
    generator = torch.Generator().manual_seed(0)
    door = number(DOOR_HEIGHT)
    position = torch.rand(1000, 2, generator=generator, dtype=torch.float64) * 2 - 1
    position[:, 0] = -WALL - 0.85 * position[:, 0].abs()
    for _ in range(100):
        action = torch.rand(1000, 2, generator=generator, dtype=torch.float64) * 2 - 1
        moved = advance(position, action, door.expand(1000))
        crossed = position[:, 0].sign() != moved[:, 0].sign()
        assert bool(free(moved, door.expand(1000)).all())
        assert bool(((position[crossed, 1] - DOOR_HEIGHT).abs() <= DOOR + 1e-12).all())
        position = moved
    assert 0.05 < float((position[:, 0] > 0).double().mean()) < 0.6  # but the door is found


def test_known_moves() -> None:
    door = number(DOOR_HEIGHT)
    one = {  # (position, action): resulting position
        ((-0.5, -0.5), (1.0, -0.5)): (-0.3, -0.6),
        ((-0.2, -0.5), (1.0, 0.0)): (-WALL, -0.5),
        ((0.2, -0.5), (-1.0, 0.0)): (WALL, -0.5),
        ((-0.2, -0.5), (1.0, 1.0)): (-WALL, -0.3),  # along the wall it slides
        ((-0.1, 0.4), (1.0, 0.0)): (0.1, 0.4),  # through the door
        ((0.0, 0.4), (0.0, 1.0)): (0.0, 0.6),
        ((0.0, 0.5), (0.0, 1.0)): (0.0, DOOR_HEIGHT + DOOR),  # the door's frame
        ((0.95, -0.95), (1.0, -1.0)): (1.0, -1.0),
        ((-0.5, 0.0), (7.0, 0.0)): (-0.3, 0.0),  # longer moves than possible are shortened
    }
    for (position, action), expected in one.items():
        assert advance(point(*position), point(*action), door).tolist() == pytest.approx(list(expected))
    every = advance(
        torch.stack([point(*position) for position, _ in one]),
        torch.stack([point(*action) for _, action in one]),
        door.expand(len(one)),
    )
    assert every.tolist() == [pytest.approx(list(expected)) for expected in one.values()]


def test_the_frame_shows_the_disc_where_it_is_and_an_opening_where_the_door_is() -> None:
    frame = draw(np.array([0.5, -0.5]), np.array(DOOR_HEIGHT), 32).astype(float)
    columns, rows = np.meshgrid(np.arange(32), np.arange(32))
    weight = frame[..., 0] / frame[..., 0].sum()
    assert (weight * columns).sum() == pytest.approx(15.5 + 0.5 * 16 / 1.1, abs=0.05)
    assert (weight * rows).sum() == pytest.approx(15.5 - 0.5 * 16 / 1.1, abs=0.05)
    middle = frame[:, 15:17, 2].mean(axis=1) > 128
    opening = np.flatnonzero(~middle)
    assert opening.mean() == pytest.approx(15.5 + DOOR_HEIGHT * 16 / 1.1, abs=0.5)
    assert middle.sum() > 20 and frame[:, :14, 2].max() == 0 == frame[..., 1].max()
    assert draw(np.zeros((4, 3, 2)), np.zeros((4, 3)), 16).shape == (4, 3, 16, 16, 3)


def test_episodes_begin_anywhere_or_where_they_are_told_to() -> None:
    env = gym.make("worldvae/TwoRooms-v0")
    starts = np.stack([env.reset(seed=seed)[0] for seed in range(300)])
    assert all(env.observation_space.contains(start) for start in starts)
    assert np.abs(starts.mean(axis=0)).max() < 0.15 and np.abs(starts).max() > 0.95
    observation, _ = env.reset(seed=0, options={"position": (0.3, -0.7)})
    assert observation.tolist() == pytest.approx([0.3, -0.7])
    inner = env.unwrapped
    assert isinstance(inner, TwoRoomsEnv) and inner.door == DOOR_HEIGHT
    assert env.step(np.array([0.5, 0.0], np.float32))[:4] == (pytest.approx([0.4, -0.7]), 0.0, False, False)
    for options, word in (
        ({"position": (0.0, -0.7)}, "wall"),
        ({"position": (0.5, 1.5)}, "field"),
        ({"goal": 1}, "goal"),
    ):
        with pytest.raises(ValueError, match=word):
            env.reset(options=options)
    with pytest.raises(UserError, match="lies in the wall"):
        make("worldvae/TwoRooms-v0").reset(options={"position": (0.0, -0.7)})


def test_a_random_door_is_seen_and_is_where_one_passes() -> None:
    env = gym.make("worldvae/TwoRooms-v0", random_door=True)
    doors = []
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        doors.append(observation[2])
        env.reset(seed=seed, options={"position": (-WALL, observation[2])})
        for _ in range(2):
            observation = env.step(np.array([1.0, 0.0], np.float32))[0]
        assert observation[0] == pytest.approx(2 * MAX_STEP - WALL)
    assert np.std(doors) > 0.2
    assert env.reset(options={"door": -0.25})[0][2] == -0.25


def test_check_env_finds_nothing_but_the_missing_reward() -> None:
    report = inspect_env(EnvConfig("worldvae/TwoRooms-v0", size=(32, 32)), seconds=0.3)
    assert report.verdict.startswith("Can be learned, with 1 thing")
    assert "never found a reward" in report.problems[0]
