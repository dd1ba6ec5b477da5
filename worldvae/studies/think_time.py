"""How many candidates a planner can imagine in a given time for a decision."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from worldvae.agents import PlannerAgent
from worldvae.models.world_model import WorldModel
from worldvae.planning import ICEMConfig
from worldvae.types import Observation

FEWEST = 2
"""Candidates below which iCEM does not search."""


@dataclass(frozen=True)
class ThinkTime:
    """What fits into the time for a decision.

    Attributes:
        candidates: of an iteration; 0 if not even `FEWEST` fit.
        milliseconds: measured for a decision with so many, or with `FEWEST` if none fit.
        limit: milliseconds that were allowed.
        config: the planner with so many candidates; None if none fit.
    """

    candidates: int
    milliseconds: float
    limit: float
    config: ICEMConfig | None


def largest_within(cost: Callable[[int], float], limit: float, fewest: int, most: int) -> tuple[int, float]:
    """Return the largest number found with a cost within `limit`, to about 5 %, and its cost.

    The number is doubled until it costs too much, and then the gap is halved: costs are taken to grow with the number.
    What is returned was measured, and did fit.

    Args:
        cost: of a number; called once for each.
        limit: the largest allowed cost.
        fewest: the smallest number.
        most: the largest one.

    Returns:
        The number and its cost; 0 and the cost of `fewest` if that is too much already.
    """
    best, spent = fewest, cost(fewest)
    if spent > limit:
        return 0, spent
    too_many = most + 1
    while best < most and too_many > best + max(1, best // 20):
        trial = min(2 * best, most) if too_many > most else (best + too_many) // 2
        found = cost(trial)
        if found <= limit:
            best, spent = trial, found
        else:
            too_many = trial
    return best, spent


def think_time(
    model: WorldModel,
    observation: Observation,
    config: ICEMConfig,
    milliseconds: float,
    *,
    seed: int = 0,
    repeats: int = 3,
    most: int = 4096,
) -> ThinkTime:
    """Return how many candidates fit into `milliseconds` per decision of one environment.

    Whole decisions of the planner's agent are timed: filtering the new row, all iterations, and the choice. Planners
    that differ in their models can then be given the same time for a decision, and this machine's speed decides what
    they search. (`PlanConfig.max_ms` stops a planner in mid-search instead, at another place in every decision.)

    Args:
        model: the world model.
        observation: one row, `[1]`.
        config: the planner; its ratio of elites to candidates is kept, and its limit in time is lifted.
        milliseconds: allowed for a decision.
        seed: of the planner's draws.
        repeats: decisions that are timed with each number, after one that is not: their median counts.
        most: the largest number of candidates that is tried.
    """
    found, spent = largest_within(
        lambda number: _decision_ms(model, observation, with_candidates(config, number), seed, repeats),
        milliseconds,
        FEWEST,
        most,
    )
    return ThinkTime(found, spent, milliseconds, with_candidates(config, found) if found else None)


def with_candidates(config: ICEMConfig, candidates: int) -> ICEMConfig:
    """Return the planner with another number of candidates, the same ratio of elites, and no limit in time."""
    elites = max(1, candidates * config.elites // config.candidates)
    return replace(config, candidates=candidates, elites=elites, max_ms=0.0)


def _decision_ms(model: WorldModel, observation: Observation, config: ICEMConfig, seed: int, repeats: int) -> float:
    agent = PlannerAgent(model, replace(config, value=False))
    generator = torch.Generator(model.device).manual_seed(seed)
    _, carry = agent.act(observation, torch.ones(1, dtype=torch.bool), None, generator)
    durations, going_on = list[float](), torch.zeros(1, dtype=torch.bool)
    for _ in range(repeats):
        began = time.perf_counter()
        action, carry = agent.act(observation, going_on, carry, generator)
        action.cpu()  # (which waits for what a GPU has been asked for)
        durations.append(time.perf_counter() - began)
    return 1e3 * statistics.median(durations)
