"""Latents predicted several steps ahead, from every row of a slice at once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.models.jepa_state import JEPAState

Step = Callable[[JEPAState, Tensor], JEPAState]
"""The state after one step from states `[batch]`, with actions `[batch, action]`."""


@dataclass(frozen=True)
class RollOut:
    """What was predicted k = 1, 2, ... steps ahead of each row from which that many rows follow.

    Attributes:
        states: for each k, states `[batch, time - k]`: element t predicts row t + k.
        valid: for each k, whether rows t .. t + k are of one episode.
    """

    states: list[JEPAState]
    valid: list[Bool[Tensor, "_ _"]]

    def mean(self, values: list[Float[Tensor, "_ _"]]) -> Float[Tensor, " step"]:
        """Return, for each k, the mean of values `[batch, time - k]` over what is valid (0 if nothing is)."""
        means = [
            torch.where(valid, value, 0.0).sum() / valid.sum().clamp(min=1)
            for value, valid in zip(values, self.valid, strict=True)
        ]
        return torch.stack(means) if means else torch.zeros(0)

    def errors(self, latent: Float[Tensor, "batch time latent"]) -> Float[Tensor, " step"]:
        """Return the mean squared error of the predictions of each k, per entry of z."""
        return self.mean(
            [(state.latent - latent[:, k:]).square().mean(dim=-1) for k, state in enumerate(self.states, start=1)]
        )

    def copied(self, latent: Float[Tensor, "batch time latent"]) -> Float[Tensor, " step"]:
        """Return the errors of "nothing changes", which predicts z_t for row t + k."""
        return self.mean(
            [(latent[:, :-k] - latent[:, k:]).square().mean(dim=-1) for k in range(1, len(self.states) + 1)]
        )


def roll_out(
    step: Step,
    states: JEPAState,
    actions: Float[Tensor, "batch time action"],
    is_first: Bool[Tensor, "batch time"],
    known: Bool[Tensor, "batch time"],
    steps: int,
) -> RollOut:
    """Predict up to `steps` rows ahead of every row, with the actions that were taken.

    Args:
        step: predicts one step.
        states: states of the rows `[batch, time]`, without frames.
        actions: of the rows.
        is_first: rows that begin an episode: no prediction across them is valid.
        known: rows from which predictions may start.
        steps: largest k; no more than the slice has rows after its first.
    """
    length = actions.shape[1]
    found, valid, now, good = list[JEPAState](), list[Tensor](), states, known
    for k in range(1, min(steps, length - 1) + 1):
        left = length - k
        now = now[:, :left]
        flat = step(now.flatten(), actions[:, k - 1 : length - 1].flatten(0, 1))
        now = flat.map(lambda x, left=left: x.unflatten(0, (-1, left)))  # type: ignore[misc]
        good = good[:, :left] & ~is_first[:, k:]
        found.append(now)
        valid.append(good)
    return RollOut(found, valid)
