"""How well a linear map finds the true state in imagined features, by the number of imagined steps."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldvae.diagnostics.probe import RidgeProbe, fit_ridge, r_squared
from worldvae.models.world_model import WorldModel
from worldvae.studies.recorded_starts import dream_from, filtered, find_starts
from worldvae.types import Batch

MOST_ROWS = 4000
"""Rows to which a probe is fitted, at most: evenly spaced ones, if there are more."""


def with_cos_and_sin(truth: Float[Tensor, "*batch state"], angle: int) -> Float[Tensor, "*batch entry"]:
    """Return true states with an angle, entry number `angle`, replaced by its cosine and, as the last entry, its sine.

    A linear map cannot find an angle that jumps by a whole turn.
    """
    found = truth.clone()
    found[..., angle] = truth[..., angle].cos()
    return torch.cat([found, truth[..., angle : angle + 1].sin()], dim=-1)


@torch.no_grad()
def fit_state_probe(
    model: WorldModel, rows: Batch, lengths: Int[Tensor, " episode"], truth: Float[Tensor, "episode time entry"]
) -> RidgeProbe:
    """Return the ridge regression from features of filtered rows to true states.

    Args:
        model: the world model.
        rows: training episodes `[episode, time]` from their first row on.
        lengths: decisions of each episode; row t exists for t <= length.
        truth: the true state of every row; angles as cosine and sine.
    """
    features = filtered(model, rows).features.cpu()
    episode, row = torch.nonzero(torch.arange(features.shape[1]) <= lengths.cpu().unsqueeze(1), as_tuple=True)
    step = -(-len(row) // MOST_ROWS)
    return fit_ridge(features[episode, row][::step], truth[episode, row][::step].cpu())


@torch.no_grad()
def state_probe_r2(
    probe: RidgeProbe,
    model: WorldModel,
    rows: Batch,
    lengths: Int[Tensor, " episode"],
    truth: Float[Tensor, "episode time entry"],
    horizons: tuple[int, ...] = (0, 1, 5, 10, 20),
    context: int = 5,
    every: int = 0,
) -> dict[int, list[float]]:
    """Return, for each horizon, R^2 of each entry of the true state, read from imagined features (0: filtered ones).

    The probe was fitted to filtered features: it asks whether imagined states mean the same as inferred ones.

    Args:
        probe: of the same model.
        model: the world model.
        rows: held-out episodes `[episode, time]` from their first row on.
        lengths: decisions of each episode.
        truth: the true state of every row, as for `fit_state_probe`.
        horizons: imagined steps.
        context: rows that are observed up to the first start.
        every: rows between two starts (0: one start an episode).

    Returns:
        Horizons with fewer than two starts are left out; an entry that does not vary has no R^2: NaN.

    Raises:
        ValueError: If no episode is longer than the context.
    """
    states, starts = filtered(model, rows), find_starts(lengths, context, every)
    imagined = dream_from(model, rows, states, starts, max(*horizons, 1)).states.features.cpu()
    begun = states.features.cpu()[starts.episode, starts.row]
    found: dict[int, list[float]] = {}
    for horizon in horizons:
        exists = starts.exists(horizon)
        if int(exists.sum()) < 2:
            continue
        features = imagined[exists, horizon - 1] if horizon else begun[exists]
        some = starts.where(exists)
        true = truth[some.episode, some.row + horizon].cpu().double()
        found[horizon] = r_squared(probe(features), true).tolist()
    return found
