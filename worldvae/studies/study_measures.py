"""What is measured of a cell: blocks that are run, recorded and failing one by one.

A measure is a function from a `MeasureContext` to a dictionary for JSON; `MEASURES` names them. Lists under the key
"returns" are numbers of single episodes, from which intervals are made.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from worldvae.agents import Agent, PlannerAgent, RandomAgent
from worldvae.bench.timing import flops, median_seconds
from worldvae.envs import EnvConfig, EnvPool
from worldvae.evaluation.play import Episodes, in_parts, play
from worldvae.films.film import film, side_by_side
from worldvae.films.open_loop import OpenLoop, open_loop
from worldvae.models.world_model import WorldModel
from worldvae.planning import ICEMConfig
from worldvae.runs.settings import RunConfig
from worldvae.studies.reward_error import reward_errors
from worldvae.studies.study_hooks import RecordedEpisodes, oracle_agent
from worldvae.studies.study_rows import Row
from worldvae.studies.study_tasks import Budget, Task
from worldvae.types import Batch

SPEED_SECONDS = 2.0
"""Seconds that the measurement of one duration takes."""

SIDE_BY_SIDE = 64
"""Imagined futures whose speed is measured, side by side: the candidates of a plan."""

FILMED = 2
"""Episodes on a film."""


class NotApplicableError(Exception):
    """A block does not exist for a row; the message says why."""


@dataclass(frozen=True)
class MeasureContext:
    """What a measure may use.

    Attributes:
        task: the task.
        budget: what is spent on measurements.
        row: the row.
        config: settings of the task and of the row.
        recorded: recorded episodes; those of `held_out("test")` no choice has seen.
        seed: of the cell.
        folder: for files, such as films.
        model: the trained model; None in rows without one.
        planner: the model with which the row plans: the same weights, but perhaps fewer steps of denoising.
    """

    task: Task
    budget: Budget
    row: Row
    config: RunConfig
    recorded: RecordedEpisodes
    seed: int
    folder: Path
    model: WorldModel | None = None
    planner: WorldModel | None = None

    @property
    def learned(self) -> WorldModel:
        """The trained model.

        Raises:
            NotApplicableError: If the row has none.
        """
        if self.model is None:
            raise NotApplicableError("there is no model")
        return self.model


def measure_all(context: MeasureContext, tell: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Run every measure; one that fails, or does not exist for the row, costs no other."""
    found: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        tell(f"measuring {name}")
        try:
            found[name] = measure(context)
        except NotApplicableError as reason:
            found[name] = {"left_out": str(reason)}
        except Exception as error:
            lines = str(error).splitlines() or [""]
            found[name] = {"failed": f"{type(error).__name__}: {lines[0]}"[:300]}
    return found


def _dream(context: MeasureContext) -> OpenLoop:
    """Return open-loop dreams of the test episodes as long as they last, up to the last horizon."""
    rows, lengths, _ = context.recorded.held_out("test")
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
        rows, lengths, _ = context.recorded.held_out("test")
        errors = reward_errors(model, rows, lengths, context=context.task.context)
        for name in ("r2", "brier", "base_brier"):
            found[f"reward_{name}" if name == "r2" else name] = {str(k): v for k, v in getattr(errors, name).items()}
    elif context.row.name != "copy_last":
        raise NotApplicableError("it predicts nothing")
    if model is not None and not model.shows:
        return found | {"psnr": None, "left_out_psnr": "the model decodes neither frames nor vectors"}
    dream = _dream(context)
    found["psnr"] = _at(dream.psnr, context.task.horizons)
    found["psnr_copy_last"] = _at(dream.psnr_copy_last, context.task.horizons)
    found["reward_mae"] = _at(dream.reward_mae, context.task.horizons)
    found["curve"] = [round(value, 3) for value in dream.psnr]
    return found


def _at(values: list[float], horizons: tuple[int, ...]) -> list[float | None]:
    return [values[h - 1] if h <= len(values) else None for h in horizons]


def measure_speed(context: MeasureContext) -> dict[str, Any]:
    """Return the cost of an imagined step: microseconds and operations, with `SIDE_BY_SIDE` futures at once."""
    model = context.planner or context.learned
    horizon = 4
    rows = context.recorded.held_out("test")[0][:1, : context.task.context].to(model.device)
    generator = torch.Generator(model.device).manual_seed(context.seed)
    with torch.no_grad():
        start = model.observe(rows, mode=True).posterior[:, -1]
        start = start[torch.zeros(SIDE_BY_SIDE, dtype=torch.int64, device=model.device)]
        actions = torch.zeros(SIDE_BY_SIDE, horizon, model.action_layout.size, device=model.device)

        def work() -> None:
            with torch.no_grad():
                model.imagine(start, actions, generator=generator, last_only=True)

        seconds = median_seconds(work, model.device, SPEED_SECONDS)
        try:
            operations: float | None = flops(work) / (SIDE_BY_SIDE * horizon)
        except Exception:  # the counter fails within some second derivatives
            operations = None
    steps = SIDE_BY_SIDE * horizon
    parameters = sum(p.numel() for p in model.parameters())
    return {"us_per_step": 1e6 * seconds / steps, "flops_per_step": operations, "parameters": parameters}


def measure_inference(context: MeasureContext) -> dict[str, Any]:
    """Return the milliseconds in which one row of one episode is inferred."""
    model = context.learned
    rows = context.recorded.held_out("test")[0][:1, : context.task.context + 1].to(model.device)
    with torch.no_grad():
        state = model.observe(rows[:, :-1], mode=True).posterior[:, -1]

        def work() -> None:
            with torch.no_grad():
                model.observe(rows[:, -1:], state, rows.action[:, -2], mode=True)

        return {"ms_per_row": 1e3 * median_seconds(work, model.device, SPEED_SECONDS)}


def measure_generation(context: MeasureContext) -> dict[str, Any]:
    """Write a small film of dreams beside what happened; return its name in the folder of the cell."""
    if context.row.name != "copy_last" and not context.learned.shows:
        raise NotApplicableError("the model decodes neither frames nor vectors")
    dream = _dream(context)
    if not dream.pixels:
        raise NotApplicableError("the task shows vectors, and not frames")
    rows = {"true": dream.truth[:FILMED], context.row.name: dream.dream[:FILMED]}
    path = film(context.folder / "dream.gif", side_by_side(rows, context.task.context, error=False, scale=1), fps=8)
    return {"film": path.name}


def planner_config(context: MeasureContext, milliseconds: float = 0.0) -> ICEMConfig:
    """Return the planner of a row: iCEM with 64 x 3 candidates of the task's horizon, or 16 x 2 of 8 steps for pixels.

    With a time limit every row starts with the same candidates and refines its plan until the time is over.
    """
    pixels = context.row.imagines == "pixels"
    candidates, iterations, elites = (16, 2, 4) if pixels else (64, 3, 8)
    horizon = min(8, context.task.plan_horizon) if pixels else context.task.plan_horizon
    if milliseconds:
        iterations = 1000
    return ICEMConfig(
        horizon=horizon,
        candidates=candidates,
        elites=elites,
        iterations=iterations,
        decay=1.0,
        discount=context.task.plan_discount,
        max_ms=milliseconds,
    )


def measure_planning(context: MeasureContext) -> dict[str, Any]:
    """Return the returns of episodes that a row plans through: with equal candidates, and in equal times."""
    pixels = context.row.imagines == "pixels"
    episodes = context.budget.played_pixels if pixels else context.budget.played
    if context.row.name == "random":
        with EnvPool([context.config.env]) as pool:
            agent: Agent = RandomAgent(pool.action_layout)
        return {"equal_candidates": _played(in_parts(agent, context.config.env, episodes, context.seed), 0)}
    if context.row.name == "copy_last":
        raise NotApplicableError("all plans are equal if the last row is repeated")
    config = planner_config(context)
    parts = in_parts(*_agent(context, config), episodes, context.seed)
    found: dict[str, Any] = {"equal_candidates": _played(parts, config.horizon), "equal_ms": []}
    for milliseconds in context.budget.milliseconds:
        config = planner_config(context, milliseconds)
        agent, env = _agent(context, config)
        # One by one: the limit is that of a batch of decisions.
        parts = [play(agent, env, 1, context.seed, first=i) for i in range(context.budget.played_timed)]
        found["equal_ms"].append({"ms": milliseconds} | _played(parts, config.horizon))
    return found


def _agent(context: MeasureContext, config: ICEMConfig) -> tuple[Agent, EnvConfig]:
    """Return the agent that plans, and the environment as it has to see it."""
    if context.row.name == "oracle":
        return oracle_agent(context.config.env, config)
    model = context.planner or context.learned
    return PlannerAgent(model, replace(config, value=False)), context.config.env


def _played(parts: list[Episodes], horizon: int) -> dict[str, Any]:
    decisions = sum(int(part.lengths.sum()) for part in parts)
    seconds = sum(sum(part.seconds) / max(1, len(part.seconds)) for part in parts) / len(parts)
    steps = sum(part.model_steps for part in parts) / max(1, decisions)
    returns = [round(value, 4) for part in parts for value in part.returns.tolist()]
    if not all(math.isfinite(value) for value in returns):
        raise ValueError("a return is not a finite number")
    return {
        "returns": returns,
        "candidates": steps / horizon if horizon else None,
        "ms_per_decision_of_all": 1e3 * seconds,
    }


MEASURES: dict[str, Callable[[MeasureContext], dict[str, Any]]] = {
    "predictions": measure_predictions,
    "speed": measure_speed,
    "inference": measure_inference,
    "generation": measure_generation,
    "planning": measure_planning,
}
"""Every block by its name. A new one is a line here."""
