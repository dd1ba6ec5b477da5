"""Quality of dreams against what they cost: models whose number of sampling steps can be set, at several numbers."""

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor

from worldvae.bench.timing import median_seconds
from worldvae.films.open_loop import open_loop
from worldvae.models.world_model import WorldModel
from worldvae.studies.energy_score import SampledErrors, sampled_errors
from worldvae.studies.moving_pixels import DreamErrors, dream_errors
from worldvae.studies.recorded_starts import filtered
from worldvae.studies.step_speed import calls_per_step
from worldvae.types import Batch


def _holder(model: Any) -> Any:
    """Return the part of a model with a number of steps: itself, or its prior; None if there is none."""
    for part in (model, getattr(model, "prior", None)):
        if isinstance(getattr(part, "steps", None), int):
            return part
    return None


def sampling_steps(model: WorldModel) -> int | None:
    """Return the number of sampling steps of each imagined step, None for a model that has no such number."""
    part = _holder(model)
    return None if part is None else int(part.steps)


def with_steps(model: WorldModel, steps: int) -> WorldModel:
    """Return a model with the same weights that samples in another number of steps; the given one stays unchanged.

    A model may have a method `with_steps(steps)` for it; of others a copy gets the number as the attribute `steps` of
    itself or of its prior.

    Raises:
        ValueError: If the model has no number of steps, or `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps={steps} must be at least 1")
    own = getattr(model, "with_steps", None)
    if callable(own):
        return cast(WorldModel, own(steps))
    if _holder(model) is None:
        raise ValueError(f"{type(model).__name__} samples in one pass: it has no number of steps to set")
    changed = copy.deepcopy(model)
    _holder(changed).steps = steps
    return changed


@dataclass(frozen=True)
class Generation:
    """Quality and cost with one number of sampling steps.

    Attributes:
        steps: sampling steps of each imagined step; None for a model that samples in one pass.
        calls: network calls of each imagined step.
        ms_per_step: milliseconds of an imagined step of all episodes side by side.
        errors: of likeliest dreams, at the horizons.
        sampled: of several drawn dreams, at the horizons.
    """

    steps: int | None
    calls: int
    ms_per_step: float
    errors: DreamErrors
    sampled: SampledErrors


def generation_block(
    model: WorldModel,
    rows: Batch,
    lengths: Int[Tensor, " episode"],
    steps: tuple[int, ...] = (1, 2, 4, 8),
    horizons: tuple[int, ...] = (1, 5, 10),
    context: int = 5,
    samples: int = 8,
    seed: int = 0,
    budget: float = 1.0,
) -> list[Generation]:
    """Measure dreams with several numbers of sampling steps; a model that samples in one pass is measured as it is.

    More steps may lower the PSNR of a dream while it gets sharper: read it beside the energy score.

    Args:
        model: the world model; it must show something.
        rows: held-out episodes `[episode, time]` from their first row on.
        lengths: decisions of each episode.
        steps: the numbers of sampling steps.
        horizons: imagined steps after which quality is measured.
        context: observed rows.
        samples: drawn dreams of each episode.
        seed: of the noise, the same for every number of steps.
        budget: seconds for each measurement of time.

    Raises:
        ValueError: If the model decodes nothing, or no episode is longer than the context.
    """
    if sampling_steps(model) is None and not hasattr(model, "with_steps"):
        return [_measure(model, rows, lengths, horizons, context, samples, seed, budget)]
    several = [with_steps(model, number) for number in steps]
    return [_measure(one, rows, lengths, horizons, context, samples, seed, budget) for one in several]


def _measure(
    model: WorldModel,
    rows: Batch,
    lengths: Tensor,
    horizons: tuple[int, ...],
    context: int,
    samples: int,
    seed: int,
    budget: float,
) -> Generation:
    horizon = min(max(horizons), rows.reward.shape[1] - context)
    generator = torch.Generator(model.device).manual_seed(seed)
    sampled = sampled_errors(model, rows, lengths, horizons, generator, context, samples)
    errors = dream_errors(open_loop(model, rows, lengths, context, horizon), horizons)
    start = filtered(model, rows[:, :context])[:, -1]
    actions = rows.action[:, context - 1 : context].to(model.device)

    @torch.no_grad()
    def step() -> None:
        model.imagine(start, actions, generator=generator, last_only=True)

    ms = 1e3 * median_seconds(step, model.device, budget)
    return Generation(sampling_steps(model), calls_per_step(model, start[:1], generator), ms, errors, sampled)
