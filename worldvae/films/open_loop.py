"""Open-loop dreams: see a few frames of an episode, imagine the rest, and hold the two side by side."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from worldvae.films.curves import curves
from worldvae.films.film import side_by_side
from worldvae.models.world_model import WorldModel
from worldvae.types import Batch, State


@dataclass(frozen=True)
class OpenLoop:
    """Dreams beside what really happened.

    Attributes:
        context: frames that were seen; the dream begins after them.
        truth: frames in 0..1 (or standardised vectors), `[episode, context + horizon, ...]`.
        dream: reconstructions while the model sees, then what it imagines; same shape.
        rewards: rewards that arrived during the dream, `[episode, horizon]`.
        dreamt_rewards: those the model predicted.
        valid: where the episode was still running.
        pixels: whether truth and dream are frames.
        rendered: the dream as `WorldModel.render` draws it, if that was asked for; same shape as `dream`.
    """

    context: int
    truth: Float[Tensor, "episode time ..."]
    dream: Float[Tensor, "episode time ..."]
    rewards: Float[Tensor, "episode horizon"]
    dreamt_rewards: Float[Tensor, "episode horizon"]
    valid: Bool[Tensor, "episode horizon"]
    pixels: bool
    rendered: Float[Tensor, "episode time channel height width"] | None = None

    @property
    def psnr(self) -> list[float]:
        """PSNR in dB of the dream at every horizon: 10 log10(1 / MSE), the MSE being the mean over episodes.

        For vectors the MSE is in units of each entry's variance in the training data. NaN where every episode was over.
        """
        return self._psnr(self.dream[:, self.context :])

    @property
    def psnr_render(self) -> list[float] | None:
        """The same for the rendered dream. Sharp detail in a wrong place costs more than a blur: expect less of it."""
        return None if self.rendered is None else self._psnr(self.rendered[:, self.context :])

    @property
    def psnr_copy_last(self) -> list[float]:
        """The same for whoever repeats the last frame that was seen."""
        last = self.truth[:, self.context - 1 : self.context]
        return self._psnr(last.expand_as(self.truth[:, self.context :]))

    @property
    def reward_mae(self) -> list[float]:
        """Mean absolute error of the predicted reward at every horizon."""
        return self._over_episodes((self.rewards - self.dreamt_rewards).abs()).tolist()

    def as_json(self) -> dict[str, Any]:
        """Return the figures, as `worldvae dream --json` and `worldvae train --json` print them."""
        rendered = {} if self.psnr_render is None else {"psnr_render": self.psnr_render}
        return {
            "context": self.context,
            "horizon": self.valid.shape[1],
            "episodes": self.valid.shape[0],
            "psnr": self.psnr,
            "psnr_copy_last": self.psnr_copy_last,
            "reward_mae": self.reward_mae,
        } | rendered

    def film(self, episodes: int = 4) -> UInt8[Tensor, "time height width 3"]:
        """Return a film of the first episodes: truth, dream and error, bordered green then red."""
        if self.pixels:
            rows = {"true": self.truth[:episodes], "dream": self.dream[:episodes]}
            if self.rendered is not None:
                rows["render"] = self.rendered[:episodes]
            return side_by_side(rows, self.context)
        return curves(self.truth[0], self.dream[0], self.context)

    def _psnr(self, prediction: Tensor) -> list[float]:
        squared = (prediction - self.truth[:, self.context :]).square().flatten(2).mean(dim=2)
        return (-10 * self._over_episodes(squared).clamp(min=1e-10).log10()).tolist()

    def _over_episodes(self, values: Float[Tensor, "episode horizon"]) -> Float[Tensor, " horizon"]:
        return (values * self.valid).sum(dim=0) / self.valid.sum(dim=0)


@torch.no_grad()
def open_loop(
    model: WorldModel,
    rows: Batch,
    lengths: Tensor,
    context: int,
    horizon: int,
    render: int = 0,
    seed: int = 0,
) -> OpenLoop:
    """Dream the rest of episodes of which the first `context` rows are seen, with the actions that were really taken.

    Both the frames that are seen and the dream after them follow the mode of q and of the prior (what the model holds
    most likely), not a draw from it.

    Args:
        model: the world model.
        rows: episodes `[episode, time]` from their first row on, at least context + horizon long.
        lengths: decisions of each episode; row t exists for t <= length.
        context: rows that are seen.
        horizon: rows that are imagined.
        render: strides in which the frames are rendered, too (0: not at all).
        seed: of the noise they are rendered from.
    """
    rows = rows[:, : context + horizon].to(model.device)
    seen = model.observe(rows[:, :context], mode=True).posterior
    # Row t is reached by the action taken at row t - 1.
    actions = rows.action[:, context - 1 : -1]
    imagined = model.imagine(seen[:, -1], actions, mode=True)
    states = State.cat([seen, imagined.states], dim=1)
    truth, dream = (shown.cpu() for shown in model.in_shown_units(states, rows.observation))
    rendered = None
    if render and rows.observation.pixels is not None:
        noise = torch.Generator(model.device).manual_seed(seed)
        rendered = model.render(states, render, noise).float().clamp(0, 1).cpu()
    steps = torch.arange(context, context + horizon)
    return OpenLoop(
        context,
        truth,
        dream,
        rows.reward[:, context:].cpu(),
        imagined.rewards.cpu(),
        steps <= lengths.cpu().unsqueeze(1),
        rows.observation.pixels is not None,
        rendered,
    )
