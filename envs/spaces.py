"""Actions of any Gymnasium space as one float vector, and back.

The bounds of an action are enforced here and nowhere else.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Float32, Float64, Int

from worldvae.errors import UserError
from worldvae.types import ActionLayout

Path = tuple[str | int, ...]

# Boxes are often "unbounded" up to the largest number of their type: nobody means such a bound.
UNBOUNDED = 1e10


def walk(space: gym.Space[Any], path: Path = ()) -> Iterator[tuple[Path, gym.Space[Any]]]:
    """Yield (path, space) for each leaf of nested Dict and Tuple spaces, in the order of the space.

    Raises:
        UserError: If a part is no space of Gymnasium's, such as one of the old gym package.
    """
    if not isinstance(space, gym.Space):
        kind = type(space)
        old = kind.__module__.partition(".")[0] == "gym"
        raise UserError(
            f"{' '.join(repr(space).split())} is of the class {kind.__module__}.{kind.__qualname__}, and a space of "
            "gymnasium.spaces is expected: "
            + ("write `import gymnasium as gym` instead of `import gym`." if old else "take Box, Discrete or another.")
        )
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from walk(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from walk(part, (*path, i))
    else:
        yield path, space


def select(value: Any, path: Path) -> Any:
    """Return the entry of a nested dict or tuple at `path`."""
    for key in path:
        value = value[key]
    return value


def box_range(space: spaces.Box) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the flat, finite ends of a Box that -1 and +1 stand for.

    A side without a bound (or with one beyond 1e10) is given one: ±1 where both sides are open, 2 units from the
    bound where one is.
    """
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    no_low, no_high = low < -UNBOUNDED, high > UNBOUNDED
    new_low = np.where(no_low, np.where(no_high, -1.0, high - 2.0), low)
    new_high = np.where(no_high, np.where(no_low, 1.0, low + 2.0), high)
    return new_low, new_high


class _BoxLeaf:
    """One Box: `size` continuous entries in [-1, 1]."""

    def __init__(self, space: spaces.Box) -> None:
        self.space = space
        self.low, high = box_range(space)
        self.width = high - self.low
        self.size = self.low.size
        self.rounds = space.dtype.kind in "iub"

    def encode(self, value: Any) -> Float64[np.ndarray, " n"]:
        unit = np.zeros(self.size)
        distance = np.asarray(value, np.float64).ravel() - self.low
        np.divide(distance, self.width, out=unit, where=self.width > 0)
        vector: np.ndarray = np.where(self.width > 0, np.clip(2 * unit - 1, -1.0, 1.0), 0.0)
        return vector

    def decode(self, part: Float32[np.ndarray, " n"]) -> np.ndarray:
        value = self.low + (np.clip(part.astype(np.float64), -1.0, 1.0) + 1) / 2 * self.width
        value = np.rint(value) if self.rounds else value
        # float32 may round a bound outwards: the space has the last word
        value = value.reshape(self.space.shape).astype(self.space.dtype)
        return np.asarray(np.clip(value, self.space.low, self.space.high))


class _CategoricalLeaf:
    """One Discrete, MultiDiscrete or MultiBinary: a one-hot block for each choice in it."""

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) -> None:
        self.space = space
        self.start: Any = 0 if isinstance(space, spaces.MultiBinary) else space.start
        if isinstance(space, spaces.Discrete):
            self.counts = [int(space.n)]
        elif isinstance(space, spaces.MultiDiscrete):
            self.counts = [int(n) for n in space.nvec.ravel()]
        else:
            self.counts = [2] * int(np.prod(space.shape))

    def encode(self, value: Any) -> Int[np.ndarray, " choices"]:
        choices: np.ndarray = (np.asarray(value).astype(np.int64) - self.start).ravel()
        if len(choices) != len(self.counts) or (choices < 0).any() or (choices >= self.counts).any():
            raise UserError(f"the action {value!r} is not in {self.space}.")
        return choices

    def decode(self, choices: Sequence[int]) -> Any:
        value = np.asarray(choices, np.int64).reshape(self.space.shape) + self.start
        return value.astype(self.space.dtype)[()]


class ActionCodec:
    """Both directions between an action space and the float vector that the world model sees.

    In the vector all continuous entries come first, then one one-hot block per discrete choice, each group in the
    order of the space (see `ActionLayout`).

    - Box: [low, high] ↔ [-1, 1], integers rounded; open sides as in `box_range`. Vectors outside are clipped, and so
      are actions beyond the range that was given to an open side.
    - Discrete, MultiDiscrete (any shape and start): a one-hot block per choice; decoding takes the largest entry.
    - MultiBinary: a block (off, on) per bit.
    - Tuple and Dict, nested: their leaves one after the other.

    Example:
        >>> codec = ActionCodec(gym.spaces.Tuple([gym.spaces.Discrete(3), gym.spaces.Box(0, 10, (1,))]))
        >>> codec.layout
        ActionLayout(continuous=1, categorical=(3,))
        >>> codec.encode((np.int64(2), np.array([5.0]))).tolist()
        [0.0, 0.0, 0.0, 1.0]

    Raises:
        UserError: If the space has a part that is none of these.
    """

    def __init__(self, space: gym.Space[Any]) -> None:
        self.space = space
        self._leaves = [(path, _leaf(leaf)) for path, leaf in walk(space)]
        self.layout = ActionLayout(
            continuous=sum(leaf.size for _, leaf in self._leaves if isinstance(leaf, _BoxLeaf)),
            categorical=tuple(n for _, leaf in self._leaves if isinstance(leaf, _CategoricalLeaf) for n in leaf.counts),
        )
        if self.layout.size == 0:
            raise UserError(f"the action space {space} is empty: a world model needs at least one action entry.")

    def encode(self, action: Any) -> Float32[np.ndarray, " action"]:
        """Return the vector of an action of the space.

        Raises:
            UserError: If a discrete choice is outside of its space.
        """
        vector = np.zeros(self.layout.size, np.float32)
        start, blocks = 0, iter(self.layout.blocks)
        for path, leaf in self._leaves:
            part = leaf.encode(select(action, path))
            if isinstance(leaf, _BoxLeaf):
                vector[start : start + leaf.size] = part
                start += leaf.size
            else:
                for choice in part:
                    vector[next(blocks).start + choice] = 1.0
        return vector

    def decode(self, vector: Float32[np.ndarray, " action"]) -> Any:
        """Return the valid action of the space that stands nearest to a vector (which must be finite)."""
        assert vector.shape == (self.layout.size,), f"got {vector.shape}, expected ({self.layout.size},)"
        assert np.isfinite(vector).all(), f"the action vector is not finite: {vector}"
        values, start, blocks = [], 0, iter(self.layout.blocks)
        for _, leaf in self._leaves:
            if isinstance(leaf, _BoxLeaf):
                values.append(leaf.decode(vector[start : start + leaf.size]))
                start += leaf.size
            else:
                values.append(leaf.decode([int(vector[next(blocks)].argmax()) for _ in leaf.counts]))
        return _nest(self.space, iter(values))

    def __repr__(self) -> str:
        return f"ActionCodec({self.space} as {self.layout})"


def _leaf(space: gym.Space[Any]) -> _BoxLeaf | _CategoricalLeaf:
    if isinstance(space, spaces.Box):
        return _BoxLeaf(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return _CategoricalLeaf(space)
    raise UserError(
        f"actions of the space {space} are not supported; "
        "Box, Discrete, MultiDiscrete, MultiBinary and Tuple or Dict of these are."
    )


def _nest(space: gym.Space[Any], values: Iterator[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _nest(part, values) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_nest(part, values) for part in space.spaces)
    return next(values)
