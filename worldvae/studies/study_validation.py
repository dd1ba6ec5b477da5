"""The number by which configurations are chosen: how well rewards are predicted, the same for every kind of model."""

import torch
from jaxtyping import Int
from torch import Tensor

from worldvae.models.world_model import WorldModel
from worldvae.types import Batch

TUNED_HORIZON = 10
"""Steps ahead at which `reward_r2` chooses configurations: predictions of the next reward hardly tell models apart."""


@torch.no_grad()
def reward_r2(model: WorldModel, rows: Batch, lengths: Int[Tensor, " episode"], k: int, context: int = 5) -> float:
    """Return the R^2 of the reward predicted k steps ahead with the recorded actions, from many starts in each episode.

    Starts are every `k` rows from row `context - 1` on; each is filtered from the beginning of its episode. Filter and
    dream follow the likeliest states.

    Args:
        model: the world model.
        rows: episodes `[episode, time]` from their first row on.
        lengths: number of decisions in each episode; row t exists for t <= length.
        k: steps ahead.
        context: rows observed before the first start.

    Returns:
        1 - squared error / squared deviation from the mean reward; NaN if no episode is long enough or its rewards are
        all equal.
    """
    time = rows.reward.shape[1]
    states = model.observe(rows.to(model.device), mode=True).posterior
    squared, seen = list[Tensor](), list[Tensor]()
    for start in range(context - 1, time - k, k):
        there = start + k <= lengths
        if not bool(there.any()):
            break
        actions = rows.action[there, start : start + k].to(model.device)
        dream = model.imagine(states[:, start][there.to(model.device)], actions, mode=True, last_only=True)
        true = rows.reward[there, start + k]
        squared.append((dream.rewards[:, -1].cpu() - true).square())
        seen.append(true)
    if not seen:
        return float("nan")
    true = torch.cat(seen)
    spread = (true - true.mean()).square().sum()
    return float(1 - torch.cat(squared).sum() / spread) if float(spread) > 0 else float("nan")
