"""Stacks of frames: each holds the last frames of its own episode, also if the rows come in parts."""

import pytest
import torch

from worldvae.models.frame_stack import as_bytes, repeated, stacked, whole


def frames_of(numbers: list[int]) -> torch.Tensor:
    """Return one row of 1 x 1 frames with these grey levels."""
    return torch.tensor(numbers, dtype=torch.uint8).view(1, -1, 1, 1, 1)


def flags(length: int, *firsts: int) -> torch.Tensor:
    found = torch.zeros(1, length, dtype=torch.bool)
    found[:, list(firsts)] = True
    return found


def test_a_stack_holds_the_frames_before_and_never_those_of_another_episode() -> None:
    found = stacked(frames_of([1, 2, 3, 4, 5, 6]), flags(6, 0, 3), 3)[0, :, :, 0, 0].tolist()
    assert found == [[1, 1, 1], [1, 1, 2], [1, 2, 3], [4, 4, 4], [4, 4, 5], [4, 5, 6]]


def test_before_a_slice_there_are_the_frames_given_or_the_first_one_repeated() -> None:
    rows, previous = frames_of([3, 4]), torch.tensor([1, 2], dtype=torch.uint8).view(1, 2, 1, 1)
    assert stacked(rows, flags(2), 3, previous)[0, :, :, 0, 0].tolist() == [[1, 2, 3], [2, 3, 4]]
    assert stacked(rows, flags(2), 3)[0, :, :, 0, 0].tolist() == [[3, 3, 3], [3, 3, 4]]
    assert stacked(rows, flags(2, 0), 3, previous)[0, :, :, 0, 0].tolist() == [[3, 3, 3], [3, 3, 4]]


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("cut", [1, 2, 4])
def test_two_parts_equal_the_whole(count: int, cut: int, generator: torch.Generator) -> None:
    rows = torch.randint(0, 256, (4, 6, 3, 2, 5), generator=generator, dtype=torch.uint8)
    firsts = torch.rand(4, 6, generator=generator) < 0.3
    at_once = stacked(rows, firsts, count)
    assert at_once.shape == (4, 6, 3 * count, 2, 5)
    first = stacked(rows[:, :cut], firsts[:, :cut], count)
    previous = first[:, -1, 3:] if count > 1 else None
    second = stacked(rows[:, cut:], firsts[:, cut:], count, previous)
    assert torch.equal(torch.cat([first, second], dim=1), at_once)


def test_the_newest_frame_is_the_last_and_a_first_row_is_repeated(generator: torch.Generator) -> None:
    rows = torch.randint(0, 256, (2, 3, 3, 2, 2), generator=generator, dtype=torch.uint8)
    found = stacked(rows, torch.ones(2, 3, dtype=torch.bool), 2)
    assert torch.equal(found[:, :, 3:], rows)
    assert torch.equal(found, repeated(rows, 2))


def test_rows_are_whole_once_their_episode_or_enough_frames_are_in_the_slice() -> None:
    assert whole(flags(5), 3).tolist() == [[False, False, True, True, True]]
    assert whole(flags(5, 1), 3).tolist() == [[False, True, True, True, True]]
    assert whole(flags(2), 1).all()


def test_floats_become_the_nearest_bytes() -> None:
    assert as_bytes(torch.tensor([0.0, 0.5, 1.0, 1.5]).view(4, 1, 1)).flatten().tolist() == [0, 128, 255, 255]
