"""Learned world models compared with the exact log-likelihood of the linear-Gaussian world they were trained on.

On average over held-out episodes no model can exceed the exact log p(x | u) of the world that generated them, so that

    gap = log p(x | u) - ELBO = KL(data || learned model) + KL(q || the learned model's own posterior)

is at least 0: it is the cost of learning, amortisation and conditioning together.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from worldvae.distributions import FullGaussianFamily
from worldvae.exact import log_likelihood, named_world, random_episodes
from worldvae.memory import MarkovMemory
from worldvae.models.parts import WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.networks import BypassedMLP
from worldvae.networks.mlp import Linear
from worldvae.networks.optimiser import Optimiser, OptimiserConfig
from worldvae.objectives import ELBOConfig
from worldvae.priors import ParametricPrior
from worldvae.seeds import stream
from worldvae.training.learner import Learner
from worldvae.types import ActionLayout, Batch, Kind, Observation, ObservationLayout

EPISODE_ROWS = 50
MAX_ACTION = 10.0
"""The action u for an entry 1 of the action vector, as in `worldvae/LinearGaussian-v0`."""

LINEAR_MODEL = WorldModelConfig(
    size="tiny",
    memory="markov",
    latent="full",
    gaussian=2,
    memory_size=8,
    hidden=32,
    bins=3,
    perceptron="bypassed",
    vector_sigma=0.3,
    vector_symlog=False,
    precision="float32",
)
"""A state-space model with a latent as long as the world's state, whose networks have linear bypasses."""

OBJECTIVE = ELBOConfig(free_nats=0.0, reward=0.0, continuation=0.0)
OPTIMISER = OptimiserConfig(learning_rate=1e-2, final=0.0, clip=1.0)


@dataclass(frozen=True)
class Nats:
    """A mean over held-out episodes in nats per episode, its standard error, and its kind of number."""

    mean: float
    error: float
    kind: Kind


@dataclass(frozen=True)
class LinearWorldResult:
    """The result of training a model on a linear-Gaussian world.

    Attributes:
        world: "mild" or "stiff".
        context: what the posterior reads: "filter" the present row, "smooth" also later rows.
        learned: "p and q", or "q" alone, for a given p.
        seed: seed of weights, episodes and noise.
        updates: number of optimiser steps.
        seconds: training time.
        episodes: number of held-out episodes, of 50 rows each.
        exact: log p(x | u) of the world itself.
        bound: ELBO of the model, without reward and continuation.
        reconstruction: its term E_q[log p(x | h, z)].
        kl: its term KL(q || p).
        gap: exact - bound, with the error of the paired difference.
        model: the trained model.
    """

    world: str
    context: str
    learned: str
    seed: int
    updates: int
    seconds: float
    episodes: int
    exact: Nats
    bound: Nats
    reconstruction: Nats
    kl: Nats
    gap: Nats
    model: SequentialVAE = field(repr=False, compare=False)

    def as_json(self) -> dict[str, Any]:
        """Return everything except the model as plain numbers, words and dictionaries."""
        found = {key: value for key, value in vars(self).items() if key != "model"}
        return {key: asdict(value) if isinstance(value, Nats) else value for key, value in found.items()}


def table(results: Sequence[LinearWorldResult]) -> str:
    """Return the results as a table in Markdown, in nats per episode of 50 rows, ± standard errors."""

    def show(x: Nats) -> str:
        return f"{x.mean:.2f} ± {x.error:.2f}"

    rows = [
        "| world | posterior | learned | seed | updates | minutes | log p(x), exact | bound | gap |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        numbers = " | ".join(show(x) for x in (r.exact, r.bound, r.gap))
        how = f"{r.world} | {r.context} | {r.learned} | {r.seed} | {r.updates} | {r.seconds / 60:.1f}"
        rows.append(f"| {how} | {numbers} |")
    return "\n".join(rows)


def learn_linear_world(
    world: str = "mild",
    context: str = "smooth",
    updates: int = 3000,
    seed: int = 0,
    *,
    given: SequentialVAE | None = None,
    parts: WorldModelConfig = LINEAR_MODEL,
    batch: int = 32,
    episodes: int = 1024,
    samples: int = 16,
    progress: Callable[[str], object] | None = None,
) -> LinearWorldResult:
    """Train a world model on random episodes of a linear-Gaussian world, and compare its ELBO with the exact result.

    Every update uses new episodes, which cost almost nothing; the held-out ones are the same for all seeds.

    Args:
        world: "mild" or "stiff".
        context: what the posterior reads.
        updates: number of optimiser steps.
        seed: seed of weights, episodes and noise.
        given: a model with the same parts whose p is copied and kept (from `with_true_p`, or learned here). Then only
            q is learned, and the gap of a filter is mostly its conditioning gap; a filter that learns p as well biases
            it towards one that suits filters, with too little noise on x.
        parts: parts of the model; `context` is added to them.
        batch: episodes per update.
        episodes: number of held-out episodes.
        samples: samples of q for each of them.
        progress: called now and then with a line about the progress.

    Raises:
        ValueError: If no world or context has this name, or a number is not positive.

    Reference: Bayer et al. 2021, "Mind the Gap when Conditioning Amortised Inference in Sequential Latent-Variable
    Models"; Turner & Sahani 2011, "Two problems with variational expectation maximisation for time-series models".
    """
    _check(world, context, min(updates, batch, samples), episodes)
    generator = torch.Generator().manual_seed(seed)
    draw = partial(random_episodes, named_world(world), length=EPISODE_ROWS, reach=MAX_ACTION)
    began = time.perf_counter()
    model, learner = _learner(replace(parts, context=context), seed, given, *draw(1024, generator=generator))
    for update in range(updates):
        _, metrics = learner.update(rows_of(*draw(batch, generator=generator)), generator, update / updates)
        if progress is not None and ((update + 1) % 250 == 0 or update + 1 == updates):
            nats = -EPISODE_ROWS * float(metrics["model/vector_nats"] + metrics["model/kl"])
            progress(f"{world} {context} seed {seed}: update {update + 1} of {updates}, bound {nats:.1f}")
    seconds = time.perf_counter() - began
    held = draw(episodes, generator=torch.Generator().manual_seed(stream(0, "held-out episodes")))
    exact = log_likelihood(named_world(world), *held)
    reconstruction, kl = measure(model, rows_of(*held), samples, generator)
    return LinearWorldResult(
        *(world, context, "p and q" if given is None else "q", seed, updates, seconds, episodes),
        exact=_nats(exact, "exact"),
        bound=_nats(reconstruction - kl, "lower_bound"),
        reconstruction=_nats(reconstruction, "estimate"),
        kl=_nats(kl, "estimate"),
        gap=_nats(exact - reconstruction + kl, "estimate"),
        model=model,
    )


@torch.no_grad()
def with_true_p(world: str) -> SequentialVAE:
    """Return a model whose p is the world's own, set by hand, with an untrained q: z is the state.

    h = [A z + B u, 0, ...], but [m0, 1, 0, ...] in the first row: the 1 makes the prior use the covariance P0 there.

    Raises:
        ValueError: If no world has this name.
    """
    _check(world, "filter", 1, 2)
    truth = named_world(world)
    model = SequentialVAE(ObservationLayout(vector=1), ActionLayout(continuous=1), LINEAR_MODEL, OBJECTIVE)
    memory, decoder, size = cast(MarkovMemory, model.memory), model.senses.likelihood("vector"), len(truth.m0)
    prior = cast(BypassedMLP, cast(ParametricPrior, model.prior).net)
    trunk, least = cast(BypassedMLP, decoder.trunk), cast(FullGaussianFamily, model.family).min_std
    for part in (memory, prior, trunk):
        for parameter in part.parameters():
            parameter.zero_()
    memory.mix.join.weight[:size] = truth.A
    memory.mix.project.weight[:size] = MAX_ACTION * truth.B
    assert memory.mix.bypass is not None
    memory.mix.bypass.weight[:size, :size] = torch.eye(size)
    memory.start[:size], memory.start[size] = truth.m0, 1.0
    prior.straight.weight[:size, :size] = torch.eye(size)
    usual, first = (1 + (s.diagonal().sqrt() - least).expm1().log() for s in (truth.Q, truth.P0))
    cast(Linear, prior.curved[-1]).bias[size : 2 * size] = usual
    prior.straight.weight[size : 2 * size, size] = first - usual
    trunk.straight.weight[:, -size:] = truth.C
    decoder.log_sigma.copy_((truth.R.diagonal().sqrt() - decoder.floor).log())
    return model


def _check(world: str, context: str, least: int, episodes: int) -> None:
    named_world(world)
    if context not in ("filter", "smooth"):
        raise ValueError(f"context={context!r} is not accepted: take filter or smooth")
    if least < 1 or episodes < 2:
        raise ValueError("take at least 2 held-out episodes (for a standard error) and 1 update, batch and sample")


def _learner(
    config: WorldModelConfig, seed: int, given: SequentialVAE | None, observations: Tensor, actions: Tensor
) -> tuple[SequentialVAE, Learner]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SequentialVAE(ObservationLayout(vector=1), ActionLayout(continuous=1), config, OBJECTIVE)
    model.calibrate(rows_of(observations, actions).observation)
    learner = Learner(model, OPTIMISER)
    if given is not None:
        for ours, theirs in zip(_p(model), _p(given), strict=True):
            ours.load_state_dict(theirs.state_dict())
        learner.optimiser = Optimiser(chain.from_iterable(part.parameters() for part in _q(model)), OPTIMISER)
    return model, learner


def _p(model: SequentialVAE) -> tuple[nn.Module, ...]:
    """Return the modules of p(x, z)."""
    return model.memory, model.prior, model.senses.decoders


def _q(model: SequentialVAE) -> tuple[nn.Module, ...]:
    """Return the modules of q(z | x)."""
    smoother = () if model.smoother is None else (model.smoother,)
    return model.senses.encoders, model.posterior, *smoother


@torch.no_grad()
def measure(
    model: SequentialVAE, rows: Batch, samples: int, generator: torch.Generator
) -> tuple[Float64[Tensor, " episode"], Float64[Tensor, " episode"]]:
    """Return E_q[log p(x | h, z)] and KL(q || p) of whole episodes in nats of the vector, over `samples` draws of q."""
    seen, kl = [], []
    for _ in range(samples):
        terms = model.elbo(rows, model.observe(rows, generator=generator))
        assert terms.vector is not None
        seen.append(terms.vector.double().sum(1))
        kl.append(terms.kl_dynamics.double().sum(1))
    return torch.stack(seen).mean(0), torch.stack(kl).mean(0)


def rows_of(observations: Tensor, actions: Tensor) -> Batch:
    """Return episodes in the row convention of the library."""
    zeros = torch.zeros(observations.shape[:2])
    none = torch.zeros_like(zeros, dtype=torch.bool)
    first = none.clone()
    first[:, 0] = True
    return Batch(Observation(vector=observations.float()), (actions / MAX_ACTION).float(), zeros, none, first)


def _nats(x: Float64[Tensor, " episode"], kind: Kind) -> Nats:
    return Nats(float(x.mean()), float(x.std()) / math.sqrt(len(x)), kind)
