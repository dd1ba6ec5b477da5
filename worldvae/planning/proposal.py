"""Distributions over action sequences: the one place that knows bounds and discrete parts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldvae.distributions import one_hot_draw
from worldvae.planning.draws import Draws
from worldvae.types import ActionLayout


def uniform_actions(
    layout: ActionLayout,
    shape: tuple[int, ...],
    device: torch.device,
    generator: torch.Generator | None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "*shape action"]:
    """Draw action vectors uniformly: continuous entries in [-1, 1], one class per one-hot block."""
    box = torch.rand(*shape, layout.continuous, device=device, dtype=dtype, generator=generator) * 2 - 1
    blocks = []
    for n in layout.categorical:
        uniform = torch.rand(shape, device=device, dtype=dtype, generator=generator)
        blocks.append(one_hot_draw(torch.ones(*shape, n, device=device, dtype=dtype), uniform))
    return torch.cat([box, *blocks], dim=-1)


@dataclass(frozen=True)
class Proposal:
    """A distribution over action sequences: Gaussian for continuous entries, categorical for one-hot blocks.

    Attributes:
        layout: shape of the action vector.
        mean: means and class probabilities, in the order of the action vector.
        std: standard deviations of the continuous entries.
    """

    layout: ActionLayout
    mean: Float[Tensor, "batch horizon action"]
    std: Float[Tensor, "batch horizon continuous"]

    @classmethod
    def uninformed(
        cls,
        layout: ActionLayout,
        batch: int,
        horizon: int,
        std: float,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> "Proposal":
        """Return the proposal of a planner that knows nothing yet: mean 0 with `std`, all classes equally likely."""
        row = torch.zeros(layout.size, device=device, dtype=dtype)
        for block, n in zip(layout.blocks, layout.categorical, strict=True):
            row[block] = 1 / n
        mean = row.repeat(batch, horizon, 1)
        return cls(layout, mean, torch.full((batch, horizon, layout.continuous), std, device=device, dtype=dtype))

    def warm_start(
        self,
        actions: Float[Tensor, "batch rest action"],
        keep: Float[Tensor, "batch"],
        trust: float = 0.8,
    ) -> "Proposal":
        """Return a proposal around the previous plan.

        Args:
            actions: the previous plan of the same problems, without the actions that have been taken.
            keep: 1 where that plan is of the same episode, 0 where another episode has begun.
            trust: weight of the previous classes against uniform ones in one-hot blocks.
        """
        horizon = self.mean.shape[1]
        shifted = torch.cat([actions, self.mean[:, actions.shape[1] :]], dim=1)[:, :horizon]
        mean = self.mean.clone()
        size = self.layout.continuous
        mean[..., :size] = shifted[..., :size]
        for block in self.layout.blocks:
            mean[..., block] = trust * shifted[..., block] + (1 - trust) * self.mean[..., block]
        mean = torch.where(keep.bool().view(-1, 1, 1), mean, self.mean)
        return Proposal(self.layout, mean, self.std)

    def sample(
        self, number: int, draws: Draws, colour: Float[Tensor, "horizon horizon"] | None = None
    ) -> Float[Tensor, "batch sample horizon action"]:
        """Draw candidates; the bounds [-1, 1] are enforced here, and nowhere else.

        Args:
            number: of candidates for each problem.
            draws: source of randomness.
            colour: the matrix that correlates white noise over time (`coloured`).
        """
        batch, horizon, _ = self.mean.shape
        size = self.layout.continuous
        box = self.mean[:, None, :, :size]
        noise = _normal(draws, (number, horizon, size), colour)
        blocks = [(box + self.std[:, None] * noise).clamp(-1, 1)]
        for block in self.layout.blocks:
            probs = self.mean[:, None, :, block].expand(batch, number, horizon, -1)
            if colour is None:
                uniform = draws.uniform(number, horizon)
            else:
                uniform = torch.special.ndtr(_normal(draws, (number, horizon, 1), colour)[..., 0])
            blocks.append(one_hot_draw(probs, uniform))
        return torch.cat(blocks, dim=-1)

    def mode(self) -> Float[Tensor, "batch horizon action"]:
        """Return the most likely action sequence."""
        size = self.layout.continuous
        parts = [self.mean[..., :size].clamp(-1, 1)]
        for block in self.layout.blocks:
            probs = self.mean[..., block]
            parts.append(F.one_hot(probs.argmax(dim=-1), probs.shape[-1]).to(probs.dtype))
        return torch.cat(parts, dim=-1)

    def blend(self, other: "Proposal", momentum: float) -> "Proposal":
        """Return the average with `other`, in which this proposal has the weight `momentum`."""
        if momentum == 0:
            return other
        mean, std = (momentum * a + (1 - momentum) * b for a, b in ((self.mean, other.mean), (self.std, other.std)))
        return Proposal(self.layout, mean, std)


def fit(
    candidates: Float[Tensor, "batch sample horizon action"],
    weights: Float[Tensor, "batch sample"],
    layout: ActionLayout,
    min_std: float,
    smoothing: float,
) -> Proposal:
    """Fit means, standard deviations and class probabilities to candidates with weights of sum 1."""
    by = weights[:, :, None, None]
    mean = (by * candidates).sum(dim=1)
    off = (candidates - mean.unsqueeze(1))[..., : layout.continuous]
    std = (by * off.square()).sum(dim=1).sqrt().clamp(min=min_std)
    for block, n in zip(layout.blocks, layout.categorical, strict=True):
        mean[..., block] = (1 - smoothing) * mean[..., block] + smoothing / n
    return Proposal(layout, mean, std)


def coloured(horizon: int, exponent: float, like: Tensor) -> Float[Tensor, "horizon horizon"]:
    """Return the matrix that gives white noise over `horizon` steps the power spectrum 1 / f^exponent, and variance 1.

    Exponent 0 leaves it white, 1 makes it pink, 2 brown. The frequency 0 has the power of the lowest one there is.

    Reference: Timmer & König 1995, "On generating power law noise".
    """
    frequency = torch.fft.rfftfreq(horizon, dtype=torch.float64)
    frequency[0] = 1 / horizon
    response = torch.fft.irfft(frequency ** (-exponent / 2) + 0j, n=horizon)
    response = response / response.norm()
    steps = torch.arange(horizon)
    circulant: Tensor = response[(steps.unsqueeze(1) - steps) % horizon].to(like)
    return circulant


def _normal(
    draws: Draws, shape: tuple[int, int, int], colour: Float[Tensor, "horizon horizon"] | None
) -> Float[Tensor, "batch sample horizon entry"]:
    if colour is None:
        return draws.normal(*shape)
    # (Coloured in the block of one problem: a matrix product may round otherwise if it has more rows.)
    number, horizon, size = shape

    def draw(generator: torch.Generator | None) -> Tensor:
        white = torch.randn(number, size, horizon, device=draws.device, dtype=draws.dtype, generator=generator)
        return (white @ colour).mT

    return draws.each(draw)
