"""How well rewards and ends of episodes are predicted in dreams, the same for every kind of model."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from worldvae.models.world_model import WorldModel
from worldvae.studies.recorded_starts import dream_from, filtered, find_starts
from worldvae.types import Batch


@dataclass(frozen=True)
class RewardErrors:
    """Errors of predictions k steps ahead, with the recorded actions.

    Attributes:
        r2: by k, 1 - squared error / squared deviation of the rewards from their mean; NaN if they are all equal.
        brier: by k, mean squared error of the predicted probability that an episode goes on, against 1 or 0.
        base_brier: by k, that of a prediction that knows only how often episodes go on: its variance.
        starts: by k, number of dreams.
    """

    r2: dict[int, float]
    brier: dict[int, float]
    base_brier: dict[int, float]
    starts: dict[int, int]


@torch.no_grad()
def reward_errors(
    model: WorldModel,
    rows: Batch,
    lengths: Int[Tensor, " episode"],
    ahead: tuple[int, ...] = (1, 5, 10),
    context: int = 5,
) -> RewardErrors:
    """Measure predictions from many starts in each episode: every k rows, from row `context - 1` on.

    Each start is filtered from the beginning of its episode; filter and dream follow the likeliest states. The
    continuation is the one of the row itself, not the product over the dream: all earlier rows did go on.

    Args:
        model: the world model.
        rows: episodes `[episode, time]` from their first row on.
        lengths: decisions of each episode; row t exists for t <= length.
        ahead: the numbers of steps; those that no episode reaches are left out.
        context: rows that are observed up to the first start.

    Raises:
        ValueError: If no episode is longer than the context.
    """
    states, found = filtered(model, rows), RewardErrors({}, {}, {}, {})
    for k in ahead:
        starts = find_starts(lengths, context, k)
        starts = starts.where(starts.exists(k))
        if not len(starts.row):
            continue
        dream = dream_from(model, rows, states, starts, k, last_only=True)
        row = starts.row + k
        found.r2[k] = _r2(dream.rewards[:, -1].cpu(), rows.reward.cpu()[starts.episode, row])
        goes_on = (~rows.termination.cpu()[starts.episode, row]).double()
        found.brier[k] = float((dream.continuations[:, -1].cpu().double() - goes_on).square().mean())
        found.base_brier[k] = float(goes_on.var(correction=0))
        found.starts[k] = len(row)
    return found


def _r2(predicted: Tensor, true: Tensor) -> float:
    spread = (true.double() - true.double().mean()).square().sum()
    missed = (predicted.double() - true.double()).square().sum()
    return float(1 - missed / spread) if float(spread) > 0 else float("nan")
