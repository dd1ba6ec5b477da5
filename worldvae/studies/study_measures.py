"""What is measured of a cell, but for planning: predictions, states, speed, inference and films."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from worldvae.bench.timing import median_seconds
from worldvae.films.film import film, side_by_side
from worldvae.films.open_loop import OpenLoop, open_loop
from worldvae.models.probabilistic import Probabilistic
from worldvae.models.world_model import WorldModel
from worldvae.studies.energy_score import sampled_errors
from worldvae.studies.frame_probe import frame_probe_r2
from worldvae.studies.generation_block import generation_block, sampling_steps, with_steps
from worldvae.studies.inference_block import inference_block, shifted, whole_slices
from worldvae.studies.latent_health import latent_health
from worldvae.studies.moving_pixels import dream_errors
from worldvae.studies.reward_error import reward_errors
from worldvae.studies.state_probe import fit_state_probe, state_probe_r2
from worldvae.studies.step_speed import step_speed
from worldvae.studies.study_context import MeasureContext, NotApplicableError
from worldvae.studies.study_data import open_probe, whole_episodes
from worldvae.studies.study_rows import REFERENCE
from worldvae.types import Batch

SPEED_SECONDS = 1.0
"""Seconds that the measurement of one duration takes."""

DRAWN = 8
"""Dreams that are drawn from each start."""

FILMED = 2
"""Episodes on a film."""

SAMPLING_STEPS, MOST_AHEAD = (1, 2, 4, 8), 10
"""Numbers of sampling steps that are compared, on dreams of so many steps."""


def _dream(context: MeasureContext) -> OpenLoop:
    """Return open-loop dreams of the test episodes as long as they last, up to the last horizon."""
    rows, lengths, _ = whole_episodes(context.recorded, "test")
    first, last = context.task.context, max(context.task.horizons)
    horizon = min(last, rows.reward.shape[1] - first, int(lengths.max()) + 1 - first)
    if horizon < 1:
        raise NotApplicableError("no recorded episode is longer than the context")
    if context.row.name == "copy_last":
        return _copied(rows[:, : first + horizon], lengths, first)
    return open_loop(context.learned, rows, lengths, first, horizon)


def _copied(rows: Batch, lengths: torch.Tensor, context: int) -> OpenLoop:
    """Return the dream that repeats the last observed row."""
    if rows.observation.pixels is not None:
        truth = (
            rows.observation.pixels / 255 if rows.observation.pixels.dtype == torch.uint8 else rows.observation.pixels
        )
    else:
        assert rows.observation.vector is not None
        truth = rows.observation.vector / rows.observation.vector.flatten(0, 1).std(dim=0).clamp(min=1e-6)
    dream, rewards = truth.clone(), rows.reward[:, context:]
    dream[:, context:] = truth[:, context - 1 : context]
    held = rows.reward[:, context - 1 : context].expand_as(rewards)
    steps = torch.arange(context, rows.reward.shape[1])
    valid = steps <= lengths.unsqueeze(1)
    return OpenLoop(context, truth, dream, rewards, held, valid, rows.observation.pixels is not None)


def measure_predictions(context: MeasureContext) -> dict[str, Any]:
    """Return errors on test episodes by horizon: of rewards, and of frames or vectors (PSNR) if they are shown."""
    found: dict[str, Any] = {"horizons": list(context.task.horizons)}
    model = context.model
    if model is not None:
        rows, lengths, _ = whole_episodes(context.recorded, "test")
        errors = reward_errors(model, rows, lengths, context=context.task.context)
        found |= {"reward_r2": _by_horizon(errors.r2), "brier": _by_horizon(errors.brier)}
        found["base_brier"] = _by_horizon(errors.base_brier)
    elif context.row.name != "copy_last":
        raise NotApplicableError("it predicts nothing")
    if model is not None and not model.shows:
        return found | {"psnr": None, "left_out_psnr": "the model decodes neither frames nor vectors"}
    dream = _dream(context)
    found["psnr"] = _at(dream.psnr, context.task.horizons)
    found["psnr_copy_last"] = _at(dream.psnr_copy_last, context.task.horizons)
    found |= asdict(dream_errors(dream, context.task.horizons))
    found["reward_mae"] = _at(dream.reward_mae, context.task.horizons)
    found["curve"] = [round(value, 3) for value in dream.psnr]
    return found


def _at(values: list[float], horizons: tuple[int, ...]) -> list[float | None]:
    return [values[h - 1] if h <= len(values) else None for h in horizons]


def measure_speed(context: MeasureContext) -> dict[str, Any]:
    """Return what encoding and an imagined step cost, with the sampling steps of the model and of its planner."""
    rows = whole_episodes(context.recorded, "test")[0][:1, : context.task.context]
    found = {"model": context.learned, "planner": context.planner or context.learned}
    generator = torch.Generator(context.learned.device).manual_seed(context.seed)
    return {
        name: asdict(step_speed(model, rows, generator, budget=SPEED_SECONDS))
        for name, model in found.items()
        if name == "model" or context.row.planning
    }


def measure_inference(context: MeasureContext) -> dict[str, Any]:
    """Return the milliseconds in which one row is inferred; of the row `vae`, what other inference would give, too."""
    model = context.learned
    rows = whole_episodes(context.recorded, "test")[0][:1, : context.task.context + 1].to(model.device)
    with torch.no_grad():
        state = model.observe(rows[:, :-1], mode=True).posterior[:, -1]

    @torch.no_grad()
    def work() -> None:
        model.observe(rows[:, -1:], state, rows.action[:, -2], mode=True)

    found: dict[str, Any] = {"ms_per_row": 1e3 * median_seconds(work, model.device, SPEED_SECONDS)}
    if context.row.name == REFERENCE and isinstance(model, Probabilistic):
        trained, held_out = (whole_slices(*whole_episodes(context.recorded, part)[:2]) for part in ("train", "test"))
        sets = {"training": trained, "held out": held_out, "shifted": shifted(held_out, context.seed)}
        found["methods"] = [line.as_json() for line in inference_block(model, sets, context.seed)]
    return found


def measure_states(context: MeasureContext) -> dict[str, Any]:
    """Return whether states hold the truth: R^2 of a linear probe by horizon, and whether features have collapsed."""
    model, task = context.learned, context.task
    rows, lengths, truth = whole_episodes(context.recorded, "test")
    probe = fit_state_probe(model, *whole_episodes(context.recorded, "train"))
    found = state_probe_r2(probe, model, rows, lengths, truth, (0, *task.horizons), task.context)
    health = asdict(latent_health(model, rows, lengths, task.horizons, task.context))
    health["error_over_copy"] = _by_horizon(health["error_over_copy"])
    return {"probe_r2": _by_horizon(found), "entries": context.recorded.settings["truth"]} | health


def measure_samples(context: MeasureContext) -> dict[str, Any]:
    """Return the energy score of drawn dreams, and the error of the best of them, at every horizon."""
    rows, lengths, _ = whole_episodes(context.recorded, "test")
    model, task = _shown(context), context.task
    context.check_affordable(model, len(lengths), DRAWN * max(task.horizons), "drawing dreams")
    generator = torch.Generator(model.device).manual_seed(context.seed)
    return asdict(sampled_errors(model, rows, lengths, task.horizons, generator, task.context, DRAWN))


def measure_frames(context: MeasureContext) -> dict[str, Any]:
    """Return the R^2 with which the task's own probe reads the true state from what was dreamt, by horizon."""
    rows, _, truth = whole_episodes(context.recorded, "test")
    if context.row.name != "copy_last":
        _shown(context)
    probe = open_probe(context.data)
    found = frame_probe_r2(probe, _dream(context), rows, truth, (0, *context.task.horizons))
    return {"probe_r2": _by_horizon(found)}


def _shown(context: MeasureContext) -> WorldModel:
    if not context.learned.shows:
        raise NotApplicableError("the model decodes neither frames nor vectors")
    return context.learned


def _by_horizon(values: Mapping[int, Any]) -> dict[str, Any]:
    return {f"at {horizon}": value for horizon, value in values.items()}


def measure_generation(context: MeasureContext) -> dict[str, Any]:
    """Return the quality of dreams with several numbers of sampling steps, if a model has such a number."""
    model, task = _shown(context), context.task
    if sampling_steps(model) is None:
        raise NotApplicableError("it samples in one pass")
    rows, lengths, _ = whole_episodes(context.recorded, "test")
    horizons = tuple(h for h in task.horizons if h <= MOST_AHEAD)
    most = with_steps(model, max(SAMPLING_STEPS))
    drawn = (DRAWN + 1) * max(horizons) * len(SAMPLING_STEPS)
    context.check_affordable(most, len(lengths), drawn, "drawing dreams with several numbers of steps")
    found = generation_block(model, rows, lengths, SAMPLING_STEPS, horizons, task.context, DRAWN, context.seed)
    return {"horizons": list(horizons), "by_steps": [asdict(one) for one in found]}


def measure_film(context: MeasureContext) -> dict[str, Any]:
    """Write a small film of dreams beside what happened; return its name in the folder of the cell."""
    if context.row.name != "copy_last":
        _shown(context)
    dream = _dream(context)
    if not dream.pixels:
        raise NotApplicableError("the task shows vectors, and not frames")
    rows = {"true": dream.truth[:FILMED], context.row.name: dream.dream[:FILMED]}
    path = film(context.folder / "dream.gif", side_by_side(rows, context.task.context, error=False, scale=1), fps=8)
    return {"film": path.name}
