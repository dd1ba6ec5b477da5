"""Frames: sizes, formats, and thin lines that must not vanish."""

import numpy as np
import pytest
from gymnasium import spaces

from worldvae.envs import ObservationCodec, make, shrink
from worldvae.envs.observations import Fault
from worldvae.envs.pixels import image_format


def test_height_and_width_are_not_swapped() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:50] = 255  # the upper half is white
    small = shrink(image, (20, 30))
    assert small.shape == (3, 20, 30) and small.dtype == np.uint8
    assert (small[:, :9] == 255).all() and (small[:, 11:] == 0).all()


@pytest.mark.parametrize("size", [(10, 10), (13, 7), (64, 64)])
def test_shrinking_keeps_the_mean(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (130, 70, 3)).astype(np.uint8)
    np.testing.assert_allclose(shrink(image, size).mean((1, 2)), image.mean((0, 1)), atol=1.5)


def test_a_line_of_one_pixel_fades_but_stays() -> None:
    image = np.full((400, 600, 3), 255, np.uint8)
    image[:, 300] = 0
    dark = 255 - shrink(image, (64, 64))[0].astype(int)
    # a new pixel covers 9.4 old ones: together the line's pixels lose one of them
    assert dark.max() > 10
    np.testing.assert_allclose(dark.sum(1), 255 * 64 / 600, atol=3)


@pytest.mark.parametrize("image", [np.zeros((8, 8, 3), np.uint8), np.zeros((3, 8, 8), np.uint8).transpose(1, 2, 0)])
def test_the_result_is_a_copy_even_of_a_frame_that_fits(image: np.ndarray) -> None:
    assert not np.shares_memory(shrink(image, (8, 8)), image)


def test_read_only_and_flipped_frames_are_read() -> None:
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    flipped = image[::-1]
    flipped.flags.writeable = False
    np.testing.assert_array_equal(shrink(flipped, (8, 4)), shrink(flipped.copy(), (8, 4)))


@pytest.mark.parametrize(
    ("space", "channels"),
    [
        (spaces.Box(0, 255, (96, 96, 3), np.uint8), 3),
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), 4),
        (spaces.Box(0, 255, (20, 30), np.uint8), 1),
        (spaces.Box(-1, 1, (20, 30, 1), np.float32), 1),
        (spaces.Box(0, 1, (10, 10, 4), np.bool_), 4),
        (spaces.Box(0, 255, (7, 7, 3), np.uint8), None),  # MiniGrid's view: symbols
        (spaces.Box(-np.inf, np.inf, (20, 30), np.float32), None),
        (spaces.Box(0, 255, (20,), np.uint8), None),
        (spaces.Box(0, 9, (20, 20), np.int64), None),
        (spaces.Discrete(4), None),
        (spaces.Box(0, 65535, (48, 64), np.uint16), 1),  # depth in millimetres
        (spaces.Box(0, 10_000, (1, 48, 64), np.int32), 1),
        (spaces.Box(0, 4, (48, 64), np.uint16), None),  # labels
        (spaces.Box(-(2**31), 2**31 - 1, (48, 64), np.int32), None),  # no bounds except those of the type
        (spaces.Box(0, 255, (4, 84, 84, 3), np.uint8), 12),
        (spaces.Box(0, 255, (4, 3, 84, 84), np.uint8), 12),
        (spaces.Box(0, 255, (84, 84, 3, 4), np.uint8), 12),
        (spaces.Box(0, 255, (8, 84, 84), np.uint8), 8),
        (spaces.Box(0, 255, (84, 84, 9), np.uint8), 9),
        (spaces.Box(0, 1, (19, 19, 17), np.float32), None),  # planes of a board
        (spaces.Box(0, 255, (12, 84, 84, 3), np.uint8), None),
        (spaces.Box(0, 255, (0, 9, 9), np.uint8), None),
    ],
)
def test_what_counts_as_an_image(space: spaces.Space, channels: int | None) -> None:
    found = image_format(space)
    assert (None if found is None else found.channels) == channels


def test_images_of_any_type_become_bytes_with_channels_last() -> None:
    found = image_format(spaces.Box(-1, 1, (1, 8, 9), np.float32))
    assert found is not None
    image = np.zeros((1, 8, 9), np.float32)
    image[0, 0, :3] = [-1, 1, 2]
    shown = found.to_bytes(image)
    assert shown.shape == (8, 9, 1) and shown.dtype == np.uint8
    assert shown[0, :4, 0].tolist() == [0, 255, 255, 128]


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (0, 3, 1, 2), (1, 2, 3, 0)])
def test_a_stack_becomes_channels_in_its_order(axes: tuple[int, ...]) -> None:
    stack = np.arange(2 * 9 * 10 * 3).reshape(2, 9, 10, 3).astype(np.uint8)  # [frame, height, width, colour]
    image = stack.transpose(axes)
    found = image_format(spaces.Box(0, 255, image.shape, np.uint8))
    assert found is not None
    shown = found.to_bytes(image)
    expected = stack.transpose(1, 2, 0, 3) if axes != (1, 2, 3, 0) else stack.transpose(1, 2, 3, 0)
    np.testing.assert_array_equal(shown, expected.reshape(9, 10, 6))


def test_integers_are_shown_by_their_bounds() -> None:
    space = spaces.Box(1000, 5000, (16, 16), np.uint16)
    depth = np.full((16, 16), 1000, np.uint16)
    depth[0, :2] = [5000, 3000]
    shown = ObservationCodec(space, (16, 16)).pixels(depth)
    assert shown[0, 0, :3].tolist() == [255, 128, 0]


@pytest.mark.parametrize(
    ("space", "value", "words"),
    [
        (spaces.Box(0, 1, (16, 16, 3), np.float32), 200.0, "holds 200, and its space promises 0 to 1: give the space"),
        (spaces.Box(0, 1, (16, 16, 3), np.float32), -1.0, "holds -1, and"),
        (spaces.Box(0, 1, (16, 16), np.uint8), 255, "holds 255, and its space promises 0 to 1"),
        (spaces.Box(0, 9000, (16, 16), np.uint16), 9500, "holds 9500, and"),
        (spaces.Dict({"cam": spaces.Box(-1, 1, (9, 9), np.float64)}), 3.0, r"the observation\['cam'\] holds 3, and"),
    ],
)
def test_images_outside_of_their_bounds_are_named(space: spaces.Space, value: float, words: str) -> None:
    image = next(iter(space.spaces.values())) if isinstance(space, spaces.Dict) else space
    array = np.zeros(image.shape, image.dtype)
    array[3, 4] = value
    with pytest.raises(Fault, match=words):
        ObservationCodec(space, (16, 16)).pixels({"cam": array} if isinstance(space, spaces.Dict) else array)


def test_rounding_is_not_outside() -> None:
    space = spaces.Box(-1, 1, (16, 16), np.float32)
    image = np.full((16, 16), 1 + 1e-3, np.float32)
    image[0] = -1 - 1e-6
    shown = ObservationCodec(space, (16, 16)).pixels(image)
    assert (shown.min(), shown.max()) == (0, 255)


def test_the_pole_of_cartpole_is_seen() -> None:
    env = make("CartPole-v1")
    frame = env.reset(seed=0)[0]["pixels"].astype(int)
    env.close()
    # the pole is ochre (202, 152, 101), the ground white: blue tells them apart
    upright = 255 - frame[2]
    rows = np.flatnonzero(upright[:44].max(1) > 60)
    assert len(rows) >= 12, "the pole should be about 15 pixels tall"
