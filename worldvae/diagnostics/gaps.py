"""What the bound of a trained model lacks, and why: the approximation, the amortisation and the conditioning gap."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.diagnostics.slices import MovedBound, Slices
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.objectives import iwae
from worldvae.posteriors import AmortisedPosterior
from worldvae.types import Kind


@dataclass(frozen=True)
class Level:
    """A bound of log p(x), in nats per row.

    Attributes:
        nats: mean over slices and samples.
        error: standard error of it that comes of the samples, and not of the choice of slices.
        kind: of the mean over the noise.
    """

    nats: float
    error: float
    kind: Kind = "lower_bound"


@dataclass(frozen=True)
class Gaps:
    """Bounds of log p(x | state before, actions) of slices, without rewards, and what lies between them.

    Attributes:
        filters: the ELBO of filters. "encoder": the model as it is. "myopic": offsets that serve their own row alone.
            "fitted": offsets d = m d_myopic + c, with vectors m and c fitted to the whole bound of other slices. Where
            the encoder is shown what comes later (`model.context=smooth`) there is "encoder" only.
        ahead: the ELBO of the best offsets that were found for the whole bound of each slice itself.
        importance: the importance-weighted bound of log p(x) with that q and all samples of a slice.
        amortisation: best filter - encoder; of a smoother ahead - encoder. No more than the gap to the best there is.
        conditioning: ahead - best filter, what looking ahead gains; 0 of a smoother. Too low by what the search for
            offsets has left, too high by what the best filter there is has over those of `filters`.
        approximation: importance - ahead. No more than log p(x) - ahead, which counts what the family lacks, the way in
            which q depends on the sampled memory, and what the search has left.
        kind: of the three gaps.
        slices: how many.
        rows: of each.
        samples: of each, for every bound.
        decoder_calls: latents decoded for every row, in all.
    """

    filters: dict[str, Level]
    ahead: Level
    importance: Level
    amortisation: float
    conditioning: float
    approximation: float
    kind: Kind
    slices: int
    rows: int
    samples: int
    decoder_calls: int


def gaps(
    model: SequentialVAE,
    slices: Slices,
    generator: torch.Generator,
    *,
    steps: int = 60,
    learning_rate: float = 0.05,
    draws: int = 2,
    samples: int = 64,
) -> Gaps:
    """Split what the bound of a model lacks on slices of episodes that it did not learn from.

    All answers are q_t = family(parameters(h_t, e_t) + d_t): the encoder's, moved by an offset for every row, so that q
    depends on the sampled memory as it did, and d = 0 is the model.

    The best filter is not the one that answers every row as well as it can be answered: p(z_t | h_t, x_t) is best for
    row t, and worse for those that follow than a q that allows for what may come (`exact.MILD`: 31.3 nats below log p,
    the best gains are 18.4 below). And offsets that suit the rows that did come look ahead. So the filter is fitted to
    the whole bound on one half of the slices and judged on the other, each way round; besides h and e it reads what the
    row asks for by itself, d_myopic.

    Args:
        model: the world model; it is not changed.
        slices: two or more.
        generator: of all draws, on the model's device.
        steps: of Adam, for each of the three searches.
        learning_rate: of their first step; it falls linearly to zero.
        draws: samples of a slice in every step.
        samples: of a slice for every bound, the same for all bounds.

    Raises:
        ValueError: If the posterior has no parameters to be moved, the prior's density is not exact, or there is only
            one slice.

    Reference: Cremer et al. 2018, "Inference Suboptimality in Variational Autoencoders", section 3; Bayer et al. 2021,
    "Mind the Gap when Conditioning Amortised Inference in Sequential Latent-Variable Models", section 3.
    """
    _check(model, len(slices.action))
    asked = MovedBound(model, slices)
    noise = asked.noise(samples, generator)  # the same for all bounds
    search = _Search(asked, generator, steps, learning_rate, draws)
    offsets = {"encoder": torch.zeros(asked.shape, device=asked.device)}
    if not model.looks_ahead:
        offsets["myopic"] = search.best(offsets["encoder"], myopic=True)
        offsets["fitted"] = search.filter(offsets["myopic"])
    measured = {name: asked.measure(d, noise) for name, d in offsets.items()}
    best = max(measured, key=lambda name: float(measured[name][0].mean()))
    found = asked.measure(search.best(offsets[best]), noise)
    ahead, weights = max(found, measured[best], key=lambda both: float(both[0].mean()))  # where nothing was gained

    filters = {name: _level(bound / asked.length) for name, (bound, _) in measured.items()}
    top, importance = _level(ahead / asked.length), _importance(weights, asked.length)
    reached = top if model.looks_ahead else filters[best]
    calls = search.decoder_calls + samples * (len(measured) + 1)
    split = reached.nats - filters["encoder"].nats, top.nats - reached.nats, importance.nats - top.nats
    return Gaps(filters, top, importance, *split, "estimate", asked.number, asked.length, samples, calls)


def _check(model: SequentialVAE, slices: int) -> None:
    if not isinstance(model.posterior, AmortisedPosterior) or model.density_kind != "exact":
        what = f"{type(model.posterior).__name__} and a log-density of kind {model.density_kind}"
        raise ValueError(f"gaps are known for an AmortisedPosterior and an exact log-density, not for {what}")
    if slices < 2:
        raise ValueError(f"{slices} slice is too few: a filter is fitted to some and judged on others; give 2 or more")


def _level(bounds: Float[Tensor, "sample slice"]) -> Level:
    error = bounds.var(0).mean() / (len(bounds) * bounds.shape[1])
    return Level(float(bounds.mean()), float(error.sqrt()))


def _importance(weights: Float[Tensor, "sample slice"], rows: int) -> Level:
    shares = torch.softmax(weights, dim=0)  # the delta method: log p is the logarithm of a mean
    error = (shares - 1 / len(shares)).square().sum().sqrt() / (rows * shares.shape[1])
    return Level(float(iwae(weights).mean()) / rows, float(error))


class _Search:
    """Adam on offsets; it scales every number by itself, so that rows and slices do not disturb one another."""

    def __init__(
        self, asked: MovedBound, generator: torch.Generator, steps: int, learning_rate: float, draws: int
    ) -> None:
        self.asked, self.generator, self.decoder_calls = asked, generator, 0
        self.steps, self.learning_rate, self.draws = steps, learning_rate, draws

    def best(self, start: Float[Tensor, "slice time parameter"], *, myopic: bool = False) -> Tensor:
        """Return offsets for the whole bound, or for every row's own term."""
        offsets = start.clone()
        self._ascend([offsets], lambda: offsets, myopic)
        return offsets

    def filter(self, myopic: Float[Tensor, "slice time parameter"]) -> Tensor:
        """Return m d_myopic + c, with the m and c that suit the slices of the other half."""
        half = torch.arange(self.asked.number, device=self.asked.device) % 2
        factor = myopic.new_full((2, 1, myopic.shape[-1]), 0.5)
        constant = torch.zeros_like(factor)

        def moved(half: Tensor) -> Tensor:
            return factor[half] * myopic + constant[half]

        self._ascend([factor, constant], lambda: moved(1 - half), False)
        return moved(half)

    def _ascend(self, numbers: list[Tensor], offsets: Callable[[], Tensor], myopic: bool) -> None:
        """Change numbers, in place, towards offsets of a higher bound."""
        adam = torch.optim.Adam([x.requires_grad_() for x in numbers], lr=self.learning_rate, betas=(0.9, 0.99))
        decay = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, self.steps)
        for _ in range(self.steps):
            adam.zero_grad()
            bound = self.asked.bound(offsets(), self.asked.noise(self.draws, self.generator), myopic=myopic)
            (-bound.mean(0).sum()).backward()
            adam.step()
            decay.step()
            self.decoder_calls += self.draws
        for x in numbers:
            x.requires_grad_(False)
