"""Errors of dreams where something happens: PSNR on moving pixels, or squared errors of vectors."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.films.open_loop import OpenLoop

MOVED = 20 / 255
"""A pixel moves if a channel changes by more than this between two true frames."""


@dataclass(frozen=True)
class DreamErrors:
    """Errors of dreams at the horizons that were asked for; None where there is nothing to measure.

    PSNR is 10 log10(1 / MSE) in dB, with the MSE over all moving pixels of all episodes. The MSE of vectors is in
    units of each entry's variance in the true rows.

    Attributes:
        moving_psnr: of frames; all None in worlds of vectors.
        moving_psnr_copy_last: the same of the last observed frame, repeated.
        moving_share: share of pixels that move.
        mse: of vectors; all None in worlds of frames.
        mse_copy_last: the same of the last observed vector, repeated.
    """

    moving_psnr: list[float | None]
    moving_psnr_copy_last: list[float | None]
    moving_share: list[float | None]
    mse: list[float | None]
    mse_copy_last: list[float | None]


def moving(dream: OpenLoop) -> Bool[Tensor, "episode horizon height width"]:
    """Return which pixels of the true frames differ from the true frame before, and belong to the episode."""
    change = dream.truth[:, dream.context :] - dream.truth[:, dream.context - 1 : -1]
    return (change.abs() > MOVED).any(dim=2) & dream.valid[:, :, None, None]


def dream_errors(dream: OpenLoop, horizons: tuple[int, ...]) -> DreamErrors:
    """Measure dreams at some horizons; 1 is the first imagined row. A horizon beyond the dream is None.

    The mask of moving pixels is that of the truth alone, so that no prediction can choose where it is judged. (On a
    still background all pixels together flatter everyone: there the last frame, repeated, reaches 24 to 32 dB.)
    """
    last = dream.truth[:, dream.context - 1 : dream.context].expand_as(dream.truth[:, dream.context :])
    none: list[float | None] = [None] * len(horizons)
    if not dream.pixels:
        own, copy = (_vector_mse(dream, guess) for guess in (dream.dream[:, dream.context :], last))
        return DreamErrors(none, none, none, _at(own, horizons), _at(copy, horizons))
    mask = moving(dream)
    own, copy = (_moving_psnr(dream, guess, mask) for guess in (dream.dream[:, dream.context :], last))
    share = mask.flatten(2).double().mean(2).sum(0) / dream.valid.sum(0)
    return DreamErrors(_at(own, horizons), _at(copy, horizons), _at(share, horizons), none, none)


def _moving_psnr(dream: OpenLoop, guess: Tensor, mask: Tensor) -> Float[Tensor, " horizon"]:
    squared = (guess - dream.truth[:, dream.context :]).square().double().mean(dim=2) * mask
    mse = squared.sum((0, 2, 3)) / mask.sum((0, 2, 3))  # NaN where nothing moves
    return -10 * mse.clamp(min=1e-10).log10()


def _vector_mse(dream: OpenLoop, guess: Tensor) -> Float[Tensor, " horizon"]:
    true = dream.truth[:, dream.context :].double()
    variance = true[dream.valid].var(dim=0, correction=0)
    squared = (guess.double() - true).square() / variance
    squared = squared[:, :, variance > 0].mean(dim=2)  # what never changes has no units
    # (A product with the mask would keep a NaN that stands after the end of an episode.)
    return torch.where(dream.valid, squared, 0.0).sum(0) / dream.valid.sum(0)


def _at(values: Float[Tensor, " horizon"], horizons: tuple[int, ...]) -> list[float | None]:
    found = [float(values[h - 1]) if 1 <= h <= len(values) else float("nan") for h in horizons]
    return [value if value == value else None for value in found]
