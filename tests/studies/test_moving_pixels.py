"""Only pixels that move count, wherever the prediction is wrong elsewhere."""

import math

import pytest
import torch

from worldvae.films.open_loop import OpenLoop
from worldvae.studies.moving_pixels import dream_errors, moving


def dream(truth: torch.Tensor, guess: torch.Tensor, valid: torch.Tensor, pixels: bool = True) -> OpenLoop:
    horizon = valid.shape[1]
    rewards = torch.zeros(len(truth), horizon)
    return OpenLoop(truth.shape[1] - horizon, truth, guess, rewards, rewards, valid, pixels)


def dot() -> torch.Tensor:
    """A white dot that moves by one pixel in every frame of 3 x 4 x 8 on black."""
    frames = torch.zeros(2, 6, 3, 4, 8)
    for t in range(6):
        frames[:, t, :, 1, t] = 1.0
    return frames


def test_psnr_counts_moving_pixels_only() -> None:
    truth, valid = dot(), torch.ones(2, 4, dtype=torch.bool)
    guess = truth.clone()
    guess[:, 2:, :, 3] += 0.5  # wrong where nothing moves: free
    assert dream_errors(dream(truth, guess, valid), (1, 4)).moving_psnr == [100.0, 100.0]
    guess = truth.clone()
    guess[:, 2, :, 1, 2] -= 0.1  # one of the two moving pixels
    found = dream_errors(dream(truth, guess, valid), (1, 2, 9))
    assert found.moving_psnr == [pytest.approx(-10 * math.log10(0.01 / 2), abs=1e-4), 100.0, None]
    assert found.moving_share == [pytest.approx(2 / 32), pytest.approx(2 / 32), None]
    assert found.moving_psnr_copy_last[0] == pytest.approx(0.0, abs=1e-6)  # both moving pixels are off by 1
    assert found.moving_psnr_copy_last[3 - 2] == pytest.approx(-10 * math.log10(1 / 2), abs=1e-5)
    assert found.mse == [None] * 3


def test_one_channel_is_enough_to_move_and_small_changes_are_not() -> None:
    truth = torch.zeros(1, 2, 3, 1, 2)
    truth[0, 1, 2, 0, 0] = 21 / 255
    truth[0, 1, :, 0, 1] = 19 / 255
    assert moving(dream(truth, truth, torch.ones(1, 1, dtype=torch.bool))).tolist() == [[[[True, False]]]]


def test_what_follows_the_end_of_an_episode_does_not_count_and_stillness_has_no_number() -> None:
    truth, valid = dot(), torch.ones(2, 4, dtype=torch.bool)
    valid[1, 1:] = False
    guess = truth.clone()
    guess[1, 3:] = 0.0
    assert dream_errors(dream(truth, guess, valid), (1, 2, 4)).moving_psnr == [100.0] * 3
    still = torch.zeros(1, 3, 1, 2, 2)
    found = dream_errors(dream(still, still, torch.ones(1, 2, dtype=torch.bool)), (1,))
    assert found.moving_psnr == [None] and found.moving_share == [0.0]


def test_vectors_are_judged_in_units_of_their_variance(generator: torch.Generator) -> None:
    truth = torch.randn(50, 10, 3, generator=generator) * torch.tensor([1.0, 100.0, 0.0])
    guess, valid = truth.clone(), torch.ones(50, 6, dtype=torch.bool)
    guess[:, 4:] = truth[:, 4:].mean((0, 1))
    found = dream_errors(dream(truth, guess, valid, pixels=False), (2,))
    assert found.mse[0] == pytest.approx(1.0, abs=0.3) and found.moving_psnr == [None]
    assert found.mse_copy_last[0] == pytest.approx(2.0, abs=0.7)  # two independent draws
