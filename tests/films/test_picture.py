"""How frames with any number of channels are shown."""

import pytest
import torch
from torch import Tensor

from worldvae.films.picture import Reading, read_channels


def noise(channels: int, time: int = 5) -> Tensor:
    return torch.rand(2, time, channels, 6, 9, generator=torch.Generator().manual_seed(channels))


def stacked(images: Tensor, number: int, step: int = 1) -> Tensor:
    """Return stacks of the last `number` images (`[batch, image, channel, height, width]`), every `step` images."""
    starts = range(0, images.shape[1] - number + 1, step)
    return torch.stack([images[:, start : start + number].flatten(1, 2) for start in starts], dim=1)


@pytest.mark.parametrize("channels", range(1, 13))
def test_frames_of_any_number_of_channels_become_a_picture_that_shows_every_channel(channels: int) -> None:
    frames = noise(channels)
    reading = read_channels(frames)
    assert sorted(channel for image in reading.images for channel in image) == list(range(channels))
    picture, error = reading.picture(frames), reading.error(frames, torch.zeros_like(frames))
    assert picture.shape[:2] == (2, 5) and picture.shape[-1] == 3 and error.shape == picture.shape[:-1]
    assert picture.shape[2] % 6 == 0 and picture.shape[3] % 9 == 0 and 0 <= picture.min() <= picture.max() <= 1
    for channel in range(channels):  # an error in any channel is visible
        other = frames.clone()
        other[:, :, channel] = 1 - other[:, :, channel]
        assert not torch.equal(reading.picture(other), picture)
        assert reading.error(frames, other).sum() > 0
    assert reading.error(frames, frames).sum() == 0


def test_one_channel_is_grey_two_are_mixed_and_three_are_colours() -> None:
    one, two, three = (noise(channels) for channels in (1, 2, 3))
    grey = read_channels(one).picture(one)
    assert torch.equal(grey, one.movedim(2, -1).expand(-1, -1, -1, -1, 3))
    mixed = read_channels(two).picture(two)
    assert torch.equal(mixed, two.mean(2, keepdim=True).movedim(2, -1).expand_as(mixed))
    assert torch.equal(read_channels(three).picture(three), three.movedim(2, -1))


def test_errors_of_two_channels_do_not_cancel() -> None:
    truth = torch.full((1, 1, 2, 3, 3), 0.5)
    dream = truth + torch.tensor([0.25, -0.25]).view(2, 1, 1)
    assert torch.equal(read_channels(truth).error(dream, truth), torch.full((1, 1, 3, 3), 0.25))


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_an_alpha_channel_that_never_changes_is_left_out(alpha: float) -> None:
    colours = noise(3)
    frames = torch.cat([colours, torch.full_like(colours[:, :, :1], alpha)], dim=2)
    assert torch.equal(read_channels(frames).picture(frames), colours.movedim(2, -1))


def test_a_red_that_looks_like_alpha_is_no_stack() -> None:
    frames = noise(4)
    frames[:, :, [0, 3]] = 1.0
    assert read_channels(frames) == Reading(((0, 1, 2),))


def test_a_depth_stands_beside_the_colours() -> None:
    frames = noise(4)
    picture = read_channels(frames).picture(frames)
    assert torch.equal(picture[..., :9, :], frames[:, :, :3].movedim(2, -1))
    assert torch.equal(picture[..., 9:, :], frames[:, :, 3:].movedim(2, -1).expand_as(picture[..., 9:, :]))


@pytest.mark.parametrize(("number", "step"), [(4, 1), (4, 2), (4, 3), (5, 1), (6, 1), (7, 2), (12, 1)])
def test_of_a_stack_of_greys_the_newest_is_shown(number: int, step: int) -> None:
    images = noise(1, time=20)
    frames = stacked(images, number, step)
    newest = images[:, number - 1 :: step]
    picture = read_channels(frames).picture(frames)
    assert torch.equal(picture, newest.movedim(2, -1).expand_as(picture))


@pytest.mark.parametrize(("number", "step"), [(2, 1), (3, 1), (4, 1), (4, 3)])
def test_of_a_stack_in_colour_the_newest_is_shown(number: int, step: int) -> None:
    images = noise(3, time=20)
    frames = stacked(images, number, step)
    assert torch.equal(read_channels(frames).picture(frames), images[:, number - 1 :: step].movedim(2, -1))


def test_a_stack_is_known_although_it_starts_and_ends_with_repeated_frames() -> None:
    images = noise(1, time=12)
    images[:, :4] = images[:, 3:4]  # at a reset, a stack is filled with the first image
    frames = stacked(images, 4)
    frames = torch.cat([frames, *[frames[:, -1:]] * 3], dim=1)  # an episode that ended before the others
    assert read_channels(frames) == Reading(((3,),))


def test_a_dream_is_read_as_what_happened_is() -> None:
    """The rows of a film show the same channels, although a dream is never exactly a stack."""
    truth, dream = stacked(noise(1, time=12), 4), noise(4, time=9)
    reading = read_channels(truth)
    assert torch.equal(reading.picture(dream), dream[:, :, 3:].movedim(2, -1).expand(-1, -1, -1, -1, 3))
    assert torch.equal(reading.error(dream, truth), (dream - truth)[:, :, 3].abs())


def test_several_images_stand_in_tiles() -> None:
    cameras = noise(6)
    picture = read_channels(cameras).picture(cameras)
    assert torch.equal(picture, torch.cat([cameras[:, :, :3], cameras[:, :, 3:]], dim=-1).movedim(2, -1))
    greys = noise(5)
    picture = read_channels(greys).picture(greys)
    assert picture.shape == (2, 5, 2 * 6, 3 * 9, 3)
    for channel in range(5):
        row, column = divmod(channel, 3)
        tile = picture[..., 6 * row : 6 * row + 6, 9 * column : 9 * column + 9, 1]
        assert torch.equal(tile, greys[:, :, channel])
    assert picture[..., 6:, 18:, :].max() == 0  # an empty place


def test_bytes_are_read_like_floats() -> None:
    frames = (255 * stacked(noise(1, time=12), 4)).to(torch.uint8)
    assert read_channels(frames) == Reading(((3,),))
