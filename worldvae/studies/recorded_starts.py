"""Rows of recorded episodes where dreams start, and the dreams from there with the recorded actions."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from worldvae.models.world_model import WorldModel
from worldvae.types import Batch, Dream, State


@dataclass(frozen=True)
class Starts:
    """Rows where dreams start.

    Attributes:
        episode: number of the episode.
        row: number of the row in it.
        lengths: decisions of that episode; its rows are 0 .. length.
    """

    episode: Int[Tensor, " start"]
    row: Int[Tensor, " start"]
    lengths: Int[Tensor, " start"]

    def exists(self, k: int) -> Bool[Tensor, " start"]:
        """Return whether there is a row k steps after each start."""
        return self.row + k <= self.lengths

    def where(self, chosen: Bool[Tensor, " start"]) -> "Starts":
        """Return some of the starts."""
        return Starts(self.episode[chosen], self.row[chosen], self.lengths[chosen])


def find_starts(lengths: Int[Tensor, " episode"], context: int, every: int = 0) -> Starts:
    """Return starts after which at least one row follows: row `context - 1`, then every `every` rows.

    Args:
        lengths: decisions of each episode.
        context: rows that are observed up to the first start.
        every: rows between two starts (0: only the first start).

    Raises:
        ValueError: If no episode is longer than the context.
    """
    lengths, last = lengths.cpu(), int(lengths.max())
    rows = list(range(context - 1, last, every)) if every else [context - 1]
    grid = torch.tensor(rows).expand(len(lengths), len(rows))
    episode, column = torch.nonzero(grid < lengths.unsqueeze(1), as_tuple=True)
    if not len(episode):
        raise ValueError(f"dreams need episodes of more than {context} rows, and the longest has {last + 1}")
    return Starts(episode, grid[episode, column], lengths[episode])


@torch.no_grad()
def filtered(model: WorldModel, rows: Batch) -> State:
    """Return the likeliest posterior state of every row, `[episode, time]`."""
    return model.observe(rows.to(model.device), mode=True).posterior


@torch.no_grad()
def dream_from(
    model: WorldModel,
    rows: Batch,
    states: State,
    starts: Starts,
    horizon: int,
    generator: torch.Generator | None = None,
    *,
    last_only: bool = False,
) -> Dream:
    """Dream from every start with the recorded actions (after the end of an episode, with whatever stands there).

    Args:
        model: the world model.
        rows: episodes `[episode, time]`.
        states: `filtered(model, rows)`.
        starts: where dreams start.
        horizon: imagined steps.
        generator: source of the noise, on the device of the model; without one, the likeliest states are followed.
        last_only: whether only the last state is needed.
    """
    ahead = starts.row.unsqueeze(1) + torch.arange(horizon)
    actions = rows.action.cpu()[starts.episode.unsqueeze(1), ahead.clamp(max=rows.reward.shape[1] - 1)]
    begin = states[starts.episode.to(model.device), starts.row.to(model.device)]
    mode = generator is None
    return model.imagine(begin, actions.to(model.device), generator=generator, mode=mode, last_only=last_only)
