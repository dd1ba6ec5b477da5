"""All diagnostics of a world model, on episodes that it was not trained on."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from worldvae.diagnostics.calibration import Calibration, calibration
from worldvae.diagnostics.collapse import Collapse, collapse, kl_per_dimension
from worldvae.diagnostics.gaps import Gaps, gaps
from worldvae.diagnostics.hole import log_ratio, mmd
from worldvae.diagnostics.inference import Inference, compare_inference
from worldvae.diagnostics.probe import linear_probe
from worldvae.diagnostics.slices import pick_slices
from worldvae.memory import LatentState
from worldvae.models.probabilistic import Inferred, Probabilistic
from worldvae.models.senses import unit
from worldvae.models.world_model import WorldModel
from worldvae.system.json_file import plain
from worldvae.types import Batch, State

CELLS_PER_SIDE = 8
"""Frames are compared as means of 8 x 8 cells: almost all single pixels are background, and trivially calibrated."""


@dataclass(frozen=True)
class Effort:
    """How much computation is spent on measuring the gain of better inference.

    Attributes:
        slices: number of slices of episodes for which the three gaps are measured.
        length: rows of each slice.
        steps: gradient steps of each search for better parameters of q.
        samples: samples per slice for every bound.
        rows: number of single rows for which the methods of inference are compared.
        refinements: gradient steps of the semi-amortised methods; inference from scratch takes ten times the largest.
        draws: draws of HMC.
    """

    slices: int = 8
    length: int = 16
    steps: int = 60
    samples: int = 64
    rows: int = 12
    refinements: tuple[int, ...] = (10, 50)
    draws: int = 200


@dataclass(frozen=True)
class Diagnosis:
    """The results of `diagnose`; nats per row, of the kind `prior_kind` if they depend on the prior's density.

    Attributes:
        prior_kind: kind of number that the prior's log-density is.
        collapse: whether z is used at all.
        kl_per_unit: KL of every unit of z, largest first; None if the posterior or the prior does not factorise.
        kl_over_time: KL in every row of an episode, averaged over episodes: the surprise.
        surprise: KL in every row of each episode, `[episode, row]`, NaN after its end.
        hole: MMD^2 and log-ratio (kind: estimate) of inferred and imagined z, regardless of memories.
        conditional_hole: log-ratio of the inferred and the imagined next z, each together with the memory.
        calibration: calibration of predictions at every horizon, for standardised vectors or cells of frames; None if
            no episode is long enough.
        probe: R^2 of a linear regression of each known entry of the true state on h and z; None if none is known.
        gaps: what the ELBO loses by approximation, by amortisation and by conditioning.
        inference: one pass of the encoder compared with iterative inference.
        left_out: why `gaps` or `inference` is None.
    """

    prior_kind: str
    collapse: Collapse
    kl_per_unit: list[float] | None
    kl_over_time: list[float]
    surprise: list[list[float]]
    hole: dict[str, float]
    conditional_hole: float
    calibration: Calibration | None
    probe: list[float] | None
    gaps: Gaps | None
    inference: list[Inference] | None
    left_out: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return plain lists and numbers; numbers that are not finite become None."""
        out: dict[str, Any] = plain(asdict(self))
        return out


def probabilistic(model: WorldModel) -> Probabilistic:
    """Return `model` itself, of which a diagnosis asks p(z | h) and q(z | h, e).

    Raises:
        ValueError: If it has none.
    """
    if not isinstance(model, Probabilistic):
        raise ValueError(f"a diagnosis asks p(z | h) and q(z | h, e), which a {type(model).__name__} does not have")
    return model


@torch.no_grad()
def diagnose(
    model: WorldModel,
    rows: Batch,
    valid: Bool[Tensor, "episode time"],
    generator: torch.Generator,
    truth: Float[Tensor, "episode time state"] | None = None,
    *,
    context: int = 5,
    horizon: int = 15,
    samples: int = 19,
    effort: Effort | None = None,
) -> Diagnosis:
    """Compute all diagnostics of a model; raise ValueError if it is not probabilistic, or there are fewer than 16 rows.

    Args:
        model: the world model, with p(z | h) and q(z | h, e).
        rows: episodes `[episode, time]` from their first row on.
        valid: which rows exist.
        generator: source of all draws, on the CPU.
        truth: known entries of the true state of every row.
        context: rows observed before a prediction.
        horizon: rows predicted.
        samples: predictions per row.
        effort: computation for `gaps` and `inference`, which take most of the time (None: skip them).
    """
    model = probabilistic(model)
    if int(valid.sum()) < 16:
        raise ValueError(f"{int(valid.sum())} rows are too few for a diagnosis, which needs 16: take more episodes")
    rows, valid = rows.to(model.device), valid.to(model.device)
    rows = replace(rows, is_first=rows.is_first | ~valid)  # no smoother may read beyond the end of an episode
    draws = torch.Generator(model.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    observed = model.observe(rows, generator=draws)
    states = observed.posterior
    q = model.posterior.distribution(observed.parameters)
    kl = model.prior.kl(q, states.latent, states.memory)
    memory, inferred = states.memory[valid], states.latent[valid]
    imagined = model.prior.step(memory, model.prior.noise(tuple(memory.shape[:1]), model.device, draws))
    pick = torch.randperm(len(memory), generator=generator)[:2000]
    memory, some, others = memory[pick], inferred[pick], imagined[pick]
    with torch.enable_grad():
        hole = {"mmd": float(mmd(some[:500], others[:500])), "log_ratio": log_ratio(some, others, generator)}
        joint = [torch.cat([memory, z], dim=-1) for z in (some, others)]
        conditional = log_ratio(joint[0], joint[1], generator)
    surprise = torch.where(valid, kl, torch.nan)
    return Diagnosis(
        model.prior.kind,
        collapse(_means(q, states)[valid], kl[valid]),
        _per_unit(model, states, q, valid),
        surprise.nanmean(0).tolist(),
        surprise.tolist(),
        hole,
        conditional,
        _calibration(model, rows, valid, draws, context, horizon, samples),
        None if truth is None else linear_probe(states.features[valid], truth.to(model.device)[valid]).tolist(),
        *_inference(model, rows, valid, observed, effort, generator, draws),
    )


def _inference(
    model: Probabilistic,
    rows: Batch,
    valid: Tensor,
    observed: Inferred,
    effort: Effort | None,
    generator: torch.Generator,
    draws: torch.Generator,
) -> tuple[Gaps | None, list[Inference] | None, dict[str, str]]:
    """Return the gaps and the comparison of inference, and the reasons if they are missing."""
    if effort is None:
        return None, None, dict.fromkeys(("gaps", "inference"), "not asked")
    left_out: dict[str, str] = {}
    split, ways = None, None
    some = pick_slices(model, rows, valid, observed, effort.slices, effort.length, generator)
    with torch.enable_grad():
        try:
            split = gaps(model, some, draws, steps=effort.steps, samples=effort.samples)
        except ValueError as error:
            left_out["gaps"] = str(error)
        try:
            ways = compare_inference(
                model,
                some.rows,
                draws,
                state=some.state,
                action=some.action,
                number=effort.rows,
                steps=effort.refinements,
                draws=effort.draws,
            )
        except ValueError as error:
            left_out["inference"] = str(error)
    return split, ways, left_out


def _means(q: Any, states: LatentState) -> Tensor:
    try:
        out: Tensor = q.mean
    except NotImplementedError:  # flows do not compute their mean
        return states.latent
    return out


def _per_unit(model: Probabilistic, states: LatentState, q: Any, valid: Tensor) -> list[float] | None:
    try:
        p = model.prior(states.memory)
    except NotImplementedError:  # a prior without a distribution object, such as an energy
        return None
    found = kl_per_dimension(q, p)
    return None if found is None else found[valid].mean(0).sort(descending=True).values.tolist()


def _calibration(
    model: Probabilistic,
    rows: Batch,
    valid: Tensor,
    generator: torch.Generator,
    context: int,
    horizon: int,
    samples: int,
) -> Calibration | None:
    length = context + horizon
    parts = [
        rows[:, start : start + length][valid[:, start + length - 1]]
        for start in range(0, rows.reward.shape[1] - length + 1, length)
    ]
    parts = [part for part in parts if len(part.reward)]
    if not parts:
        return None
    batch = Batch.cat(parts, dim=0)
    seen = model.observe(batch[:, :context], generator=generator).posterior[:, -1]
    number = len(batch.reward)
    start = seen.map(lambda x: x.repeat(samples, *[1] * (x.dim() - 1)))
    actions = batch.action[:, context - 1 : -1].repeat(samples, 1, 1)
    dream = model.imagine(start, actions, generator=generator).states
    observation = batch.observation
    if observation.vector is not None:
        p = model.decode(dream, "vector")
        drawn = p.mean + p.stddev * torch.randn(p.mean.shape, device=model.device, generator=generator)
        truth = model.senses.standardise(model.senses.squash(observation.vector[:, context:]))
        drawn = model.senses.standardise(drawn)
    else:
        assert observation.pixels is not None
        truth = _cells(unit(observation.pixels[:, context:]))
        drawn = torch.cat([_cells(model.decode(part, "pixels").mean) for part in _chunks(dream, 64)])
    return calibration(drawn.view(samples, number, horizon, -1), truth.flatten(2))


def _chunks(states: State, size: int) -> list[State]:
    return [states[start : start + size] for start in range(0, states.size, size)]


def _cells(frames: Float[Tensor, "row time channel height width"]) -> Float[Tensor, "row time cell"]:
    pooled = F.adaptive_avg_pool2d(frames.float().flatten(0, 1), CELLS_PER_SIDE)
    out: Tensor = pooled.flatten(1).unflatten(0, frames.shape[:2])
    return out
