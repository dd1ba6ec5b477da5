"""Why a trained model's ELBO is below log p(x): the approximation, the amortisation and the conditioning gap."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.diagnostics.slices import MovedBound, Slices
from worldvae.models.probabilistic import Probabilistic
from worldvae.objectives import iwae
from worldvae.posteriors import AmortisedPosterior
from worldvae.types import Kind


@dataclass(frozen=True)
class Level:
    """A bound on log p(x), in nats per row.

    Attributes:
        nats: mean over slices and samples.
        error: its standard error due to the samples, not to the choice of slices.
        kind: kind of number that the mean over the noise is.
    """

    nats: float
    error: float
    kind: Kind = "lower_bound"


@dataclass(frozen=True)
class Gaps:
    """Bounds on log p(x | state before, actions) of slices, without rewards, and the differences between them.

    Attributes:
        filters: ELBOs of filters. "encoder": the model itself. "myopic": offsets d_myopic that optimise the term of
            their own row only. "fitted": offsets d = m d_myopic + c, with vectors m and c fitted to the whole ELBO of
            other slices. If the encoder reads later rows (`model.context=smooth`), there is only "encoder".
        ahead: ELBO of the best offsets found for the whole ELBO of each slice.
        importance: importance-weighted bound on log p(x) with that q and all samples of a slice.
        amortisation: best filter - encoder; for a smoother: ahead - encoder. At most the gap to the best q.
        conditioning: ahead - best filter, the gain of looking ahead; 0 for a smoother. Too low by the remaining error
            of the search for offsets, too high by the distance of the best possible filter from those in `filters`.
        approximation: importance - ahead. At most log p(x) - ahead, which includes the limits of the family, the way
            in which q depends on the sampled memory, and the remaining error of the search.
        kind: kind of number that the three gaps are.
        slices: number of slices.
        rows: rows per slice.
        samples: samples per slice for every bound.
        decoder_calls: total number of latents decoded per row.
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
    model: Probabilistic,
    slices: Slices,
    generator: torch.Generator,
    *,
    steps: int = 60,
    learning_rate: float = 0.05,
    draws: int = 2,
    samples: int = 64,
) -> Gaps:
    """Split the gap between a model's ELBO and log p(x), on slices of episodes that it was not trained on.

    Every q here is q_t = family(parameters(h_t, e_t) + d_t): the encoder's q, moved by an offset for every row, so that
    it still depends on the sampled memory, and d = 0 is the model.

    The best filter is not the one with the best answer for every row: p(z_t | h_t, x_t) is best for row t, but worse
    for the following rows than a q that allows for several futures (`exact.MILD`: it is 31.3 nats below log p, the best
    gains are 18.4 below). And offsets fitted to the rows that followed look ahead. Therefore the filter is fitted to
    the whole ELBO on one half of the slices and evaluated on the other half, and vice versa; besides h and e it reads
    the best offset for the row by itself, d_myopic.

    Args:
        model: the world model; it is not changed.
        slices: two or more slices.
        generator: source of all draws, on the model's device.
        steps: steps of Adam, for each of the three searches.
        learning_rate: initial step size; it falls linearly to zero.
        draws: samples per slice in every step.
        samples: samples per slice for every bound, the same for all bounds.

    Raises:
        ValueError: If the posterior has no parameters that could be moved, the prior's density is not exact, or there
            is only one slice.

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
    ahead, weights = max(found, measured[best], key=lambda both: float(both[0].mean()))  # if the search gained nothing

    filters = {name: _level(bound / asked.length) for name, (bound, _) in measured.items()}
    top, importance = _level(ahead / asked.length), _importance(weights, asked.length)
    reached = top if model.looks_ahead else filters[best]
    calls = search.decoder_calls + samples * (len(measured) + 1)
    split = reached.nats - filters["encoder"].nats, top.nats - reached.nats, importance.nats - top.nats
    return Gaps(filters, top, importance, *split, "estimate", asked.number, asked.length, samples, calls)


def _check(model: Probabilistic, slices: int) -> None:
    if not isinstance(model.posterior, AmortisedPosterior) or model.density_kind != "exact":
        what = f"{type(model.posterior).__name__} and a log-density of kind {model.density_kind}"
        raise ValueError(f"the gaps need an AmortisedPosterior and an exact log-density, not {what}")
    if slices < 2:
        raise ValueError(f"{slices} slice is too few: a filter is fitted to some and tested on others; give 2 or more")


def _level(bounds: Float[Tensor, "sample slice"]) -> Level:
    error = bounds.var(0).mean() / (len(bounds) * bounds.shape[1])
    return Level(float(bounds.mean()), float(error.sqrt()))


def _importance(weights: Float[Tensor, "sample slice"], rows: int) -> Level:
    shares = torch.softmax(weights, dim=0)  # the delta method: log p is the logarithm of a mean
    error = (shares - 1 / len(shares)).square().sum().sqrt() / (rows * shares.shape[1])
    return Level(float(iwae(weights).mean()) / rows, float(error))


class _Search:
    """Adam on offsets; it scales every number separately, so that rows and slices do not influence one another."""

    def __init__(
        self, asked: MovedBound, generator: torch.Generator, steps: int, learning_rate: float, draws: int
    ) -> None:
        self.asked, self.generator, self.decoder_calls = asked, generator, 0
        self.steps, self.learning_rate, self.draws = steps, learning_rate, draws

    def best(self, start: Float[Tensor, "slice time parameter"], *, myopic: bool = False) -> Tensor:
        """Return offsets that optimise the whole ELBO or, if `myopic`, every row's own term."""
        offsets = start.clone()
        self._ascend([offsets], lambda: offsets, myopic)
        return offsets

    def filter(self, myopic: Float[Tensor, "slice time parameter"]) -> Tensor:
        """Return m d_myopic + c, with m and c fitted to the slices of the other half."""
        half = torch.arange(self.asked.number, device=self.asked.device) % 2
        factor = myopic.new_full((2, 1, myopic.shape[-1]), 0.5)
        constant = torch.zeros_like(factor)

        def moved(half: Tensor) -> Tensor:
            return factor[half] * myopic + constant[half]

        self._ascend([factor, constant], lambda: moved(1 - half), False)
        return moved(half)

    def _ascend(self, numbers: list[Tensor], offsets: Callable[[], Tensor], myopic: bool) -> None:
        """Change `numbers`, in place, to raise the ELBO."""
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
