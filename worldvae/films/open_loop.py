"""Open-loop dreams: observe a few frames of an episode, imagine the rest, and compare it with what happened."""

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
    """Dreams and the real episodes.

    Attributes:
        context: number of observed frames; the dream begins after them.
        truth: frames in 0..1 (or standardised vectors), `[episode, context + horizon, ...]`.
        dream: reconstructions of observed frames, then imagined ones; same shape.
        rewards: real rewards during the dream, `[episode, horizon]`.
        dreamt_rewards: predicted rewards.
        valid: where the episode had not ended.
        pixels: whether truth and dream are frames.
        rendered: the dream as drawn by `WorldModel.render`, if requested; same shape as `dream`.
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
        """PSNR in dB of the dream at every horizon: 10 log10(1 / MSE), where MSE is the mean over episodes.

        For vectors the MSE is in units of each entry's variance in the training data. NaN if every episode had ended.
        """
        return self._psnr(self.dream[:, self.context :])

    @property
    def psnr_render(self) -> list[float] | None:
        """PSNR of the rendered dream. Sharp detail in a wrong place costs more than blur: expect a lower value."""
        return None if self.rendered is None else self._psnr(self.rendered[:, self.context :])

    @property
    def psnr_copy_last(self) -> list[float]:
        """PSNR of a baseline that repeats the last observed frame."""
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
        """Return a film of the first episodes: truth, dream and error, with a green, then a red border."""
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
    """Dream the rest of episodes after observing the first `context` rows, with the actions that were really taken.

    Both the filter and the dream follow the mode of q and of the prior (the likeliest states), not draws.

    Args:
        model: the world model.
        rows: episodes `[episode, time]` from their first row on, at least context + horizon long.
        lengths: number of decisions in each episode; row t exists for t <= length.
        context: number of observed rows.
        horizon: number of imagined rows.
        render: denoising steps if frames are to be rendered, too (0: they are not).
        seed: seed of the noise from which frames are rendered.
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
