"""Episodes that the rows of the study plan through: with equal candidates, and in equal times."""

from dataclasses import asdict, replace
from typing import Any

from worldvae.agents import Agent, PlannerAgent, RandomAgent
from worldvae.envs import EnvConfig, EnvPool
from worldvae.planning import ICEMConfig
from worldvae.studies.oracle import TruePlanner, oracle
from worldvae.studies.planned_returns import planned_returns
from worldvae.studies.study_context import MeasureContext, NotApplicableError
from worldvae.studies.study_data import whole_episodes


def measure_planning(context: MeasureContext) -> dict[str, Any]:
    """Return the returns of episodes that a row plans through: with equal candidates, and in equal times."""
    pixels = context.row.imagines == "pixels"
    episodes = context.budget.played_pixels if pixels else context.budget.played
    if context.row.name == "random":
        with EnvPool([context.config.env]) as pool:
            agent: Agent = RandomAgent(pool.action_layout)
        return {"equal_candidates": _played(context, agent, context.config.env, episodes)}
    if context.row.name == "copy_last":
        raise NotApplicableError("all plans are equal if the last row is repeated")
    if context.row.name != "oracle":
        _check_affordable(context, episodes)
    found: dict[str, Any] = {"equal_candidates": _planned(context, 0.0, episodes)}
    timed = [{"ms": ms} | _planned(context, ms, context.budget.played_timed) for ms in context.budget.milliseconds]
    return found | {"equal_ms": timed}


def _check_affordable(context: MeasureContext, episodes: int) -> None:
    """Refuse plans that take too long: with equal candidates, and with one iteration wherever time is limited.

    Raises:
        NotApplicableError: If they do.
    """
    config = planner_config(context)
    lengths = whole_episodes(context.recorded, "test")[1]
    timed = context.budget.played_timed * len(context.budget.milliseconds)
    rounds = config.iterations * episodes + timed
    steps = int(lengths.float().mean() * rounds * config.horizon)
    model = context.planner or context.learned
    context.check_affordable(model, config.candidates, steps, f"planning through {episodes + timed} episodes")


def planner_config(context: MeasureContext, milliseconds: float = 0.0) -> ICEMConfig:
    """Return the planner of a row: iCEM with 64 x 3 candidates of the task's horizon, or 16 x 2 of 8 steps for pixels.

    Its other numbers are the task's. With a time limit every row starts with the same candidates and refines its plan
    until the time is over.
    """
    pixels = context.row.imagines == "pixels"
    candidates, iterations, elites = (16, 2, 4) if pixels else (64, 3, 8)
    return replace(
        context.config.icem,
        horizon=min(8, context.task.plan_horizon) if pixels else context.task.plan_horizon,
        candidates=candidates,
        elites=elites,
        iterations=1000 if milliseconds else iterations,
        decay=1.0,
        discount=context.task.plan_discount,
        value=False,
        max_ms=milliseconds,
    )


def _planned(context: MeasureContext, milliseconds: float, episodes: int) -> dict[str, Any]:
    config, env = planner_config(context, milliseconds), context.config.env
    if context.row.name != "oracle":
        return _played(context, PlannerAgent(context.planner or context.learned, config), env, episodes)
    # The oracle meets the same episodes, and sees their true states.
    full = {"full_state": True} if env.id == "worldvae/LinearGaussian-v0" else {}
    env = replace(env, obs="state", kwargs=env.kwargs | full)
    return _played(context, TruePlanner(oracle(env), config), env, episodes)


def _played(context: MeasureContext, agent: Agent, env: EnvConfig, episodes: int) -> dict[str, Any]:
    found = asdict(planned_returns(agent, env, episodes, context.seed))
    del found["lengths"]
    if isinstance(agent, TruePlanner):  # whose imagined steps are counted, and not its candidates
        found["candidates"] /= agent.config.horizon
    return found
