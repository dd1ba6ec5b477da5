"""Observations of any Gymnasium space as frames, a vector, or both."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from jaxtyping import Float32, UInt8

from worldvae.envs.pixels import ImageFormat, image_format, shrink
from worldvae.envs.spaces import Path, select, walk
from worldvae.errors import UserError

VectorSpace = spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary


class Fault(ValueError):
    """What an environment returned is not what its spaces promise; the message completes "CartPole-v1, step 3: "."""


class ObservationCodec:
    """Reads observations of any space: `pixels` gathers the images in it, `vector` everything else.

    Nested Dict and Tuple spaces are gone through in the order of the space. Images are resized to `size` and
    concatenated over channels; Boxes are flattened; Discrete and MultiDiscrete become one-hot blocks, MultiBinary its
    bits. Entries of other kinds (Text, Graph, Sequence, ...) are left out with a warning.

    Attributes:
        channels: Number of channels of all images together (0 without images).
        vector_size: Length of the vector (0 without one).
        ignored: Names of the entries that were left out.
        widest: Name and space of the entry with most numbers in the vector (empty without a vector).

    Raises:
        UserError: If nothing in the space can be read.
    """

    def __init__(self, space: gym.Space[Any], size: tuple[int, int]) -> None:
        self.space, self.size = space, size
        self._images: list[tuple[Path, gym.Space[Any], ImageFormat]] = []
        self._vectors: list[tuple[Path, VectorSpace]] = []
        ignored: list[str] = []
        for path, leaf in walk(space):
            if (image := image_format(leaf)) is not None:
                self._images.append((path, leaf, image))
            elif isinstance(leaf, VectorSpace):
                self._vectors.append((path, leaf))
            else:
                ignored.append(f"{_name(path)} ({type(leaf).__name__})")
        if not self._images and not self._vectors:
            raise UserError(
                f"observations of the space {space} cannot be read; "
                "Box, Discrete, MultiDiscrete, MultiBinary and Tuple or Dict of these can."
            )
        if ignored:
            warnings.warn(f"left out of the observation: {', '.join(ignored)}.", stacklevel=2)
        self.ignored = tuple(ignored)
        self.channels = sum(image.channels for _, _, image in self._images)
        self.vector_size = sum(_width(leaf) for _, leaf in self._vectors)
        widest = max(self._vectors, key=lambda entry: _width(entry[1]), default=None)
        self.widest = "" if widest is None else f"{_name(widest[0])}, {' '.join(str(widest[1]).split())}"

    def pixels(self, observation: Any) -> UInt8[np.ndarray, "channel height width"]:
        """Return all images of an observation, resized and concatenated over channels.

        Raises:
            Fault: If the observation is not what the space promises.
        """
        frames = []
        for path, leaf, image in self._images:
            array = _array(observation, path, leaf)
            if (array.dtype == np.uint8) != (leaf.dtype == np.uint8):
                raise Fault(f"{_name(path)} has the type {array.dtype}, expected {leaf.dtype}")
            if (stray := image.stray(array)) is not None:
                raise Fault(
                    f"{_name(path)} holds {stray:g}, and its space promises {image.low:g} to {image.high:g}: give the "
                    "space the bounds that its images really have, or scale what the environment returns"
                )
            frames.append(shrink(image.to_bytes(array), self.size))
        return frames[0] if len(frames) == 1 else np.concatenate(frames)

    def vector(self, observation: Any) -> Float32[np.ndarray, " vector"]:
        """Return everything that is not an image as one vector.

        Raises:
            Fault: If the observation is not what the space promises.
        """
        parts = [_flat(_array(observation, path, leaf), leaf, path) for path, leaf in self._vectors]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _name(path: Path) -> str:
    return "the observation" + "".join(f"[{key!r}]" for key in path)


def _width(space: VectorSpace) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    return int(space.nvec.sum() if isinstance(space, spaces.MultiDiscrete) else np.prod(space.shape))


def _array(observation: Any, path: Path, space: gym.Space[Any]) -> np.ndarray:
    """Return the entry at `path` as a numeric, finite array of the shape that the space promises."""
    try:
        array = np.asarray(select(observation, path))
    except (LookupError, TypeError, ValueError):
        raise Fault(f"{_name(path)} is missing or not an array, expected {space}") from None
    if array.dtype.kind not in "biuf":
        raise Fault(f"{_name(path)} is of type {array.dtype}, expected numbers in {space}")
    if array.shape != space.shape:
        raise Fault(f"{_name(path)} has the shape {array.shape}, expected {space.shape}")
    if not np.isfinite(array).all():
        raise Fault(f"{_name(path)} holds NaN or infinity, expected finite numbers")
    return array


def _flat(array: np.ndarray, space: VectorSpace, path: Path) -> Float32[np.ndarray, " n"]:
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        choices = np.ravel(array - space.start)
        counts = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        if (choices < 0).any() or (choices >= counts).any() or (choices % 1 != 0).any():
            raise Fault(f"{_name(path)} is {array}, which is not in {space}")
        vector = np.zeros(counts.sum(), np.float32)
        vector[np.cumsum(counts) - counts + choices.astype(np.int64)] = 1.0
        return vector
    with np.errstate(over="ignore"):
        vector = array.ravel().astype(np.float32)
    if not np.isfinite(vector).all():
        raise Fault(f"{_name(path)} holds numbers too large for float32")
    return vector
