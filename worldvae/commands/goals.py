"""`worldvae goals RUN`: how often does planning towards an image of a goal reach it?"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from worldvae.agents import GOALS
from worldvae.commands.open_run import open_run
from worldvae.commands.record import Recorder, RecordFile
from worldvae.errors import UserError, near_miss
from worldvae.evaluation.reaching import GOAL_OBJECTIVES, GoalSuite, Reached
from worldvae.films.film import film, towards_goals
from worldvae.models.probabilistic import Probabilistic
from worldvae.runs.settings import PLANNER_SECTIONS
from worldvae.training.progress import say

GOAL_PLANNERS = tuple(name for name in PLANNER_SECTIONS if name not in ("guided", "tree"))
"""Planners without a policy: the actor of a run has learnt to earn rewards, not to reach goals."""

FILMED_PAIRS = 6


def goals(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of planners, e.g. icem.horizon=20.")
    ] = None,
    agent: Annotated[
        str, typer.Option(help=f"What plans: {', '.join(GOAL_PLANNERS)}; or several.", metavar="NAME[,NAME]...")
    ] = "icem",
    pairs: Annotated[int, typer.Option("--pairs", "--episodes", help="Held-out pairs of a start and a goal.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the pairs and of the planners.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
    record: RecordFile = None,
) -> None:
    """Plan towards pictures of goals: how many are reached, between the floor (random play) and the ceiling?"""
    recorder = Recorder(record)
    opened = open_run(run, settings or [], pairs, "--pairs")
    names = _planners(agent)
    suite = GoalSuite(opened.config.env, pairs, seed)
    results, films, objectives = [suite.random()], [], list(GOAL_OBJECTIVES)
    if not isinstance(opened.model, Probabilistic):
        objectives.remove("probability")
        say(f"Plans by log q are left out: a {type(opened.model).__name__} has no q(z | h, e).")
    for name in names:
        for objective in objectives:
            try:
                found = suite.model(opened, name, objective, FILMED_PAIRS)
            except UserError as error:
                if objective in GOALS:
                    raise
                say(f"Planning along what was seen is left out: {error}")
                continue
            results.append(found)
            if found.frames is not None and suite.goals.pixels is not None:
                arrived = torch.from_numpy(found.distances[:FILMED_PAIRS] <= found.tolerance).cummax(dim=1).values
                path = opened.folder / "goals" / f"{name}_{objective}_seed{seed}.gif"
                films.append(str(film(path, towards_goals(suite.goals.pixels[:FILMED_PAIRS], found.frames, arrived))))
        results.append(suite.oracle(getattr(opened.config, name)))
    result = _object(suite, results, films)
    print(json.dumps(result, allow_nan=False) if as_json else _table(suite, results, films))
    recorder.keep(result)


def _planners(agents: str) -> list[str]:
    given = dict.fromkeys(name.strip() for name in agents.split(","))
    names = [name for name in given if name != "random"]  # which is always the floor
    names = names or ["icem"]
    for name in names:
        if name not in GOAL_PLANNERS:
            raise UserError(
                f"--agent {name!r} cannot plan towards goals: take one or more of "
                f"{', '.join(GOAL_PLANNERS)}.{near_miss(name, GOAL_PLANNERS)}"
            )
    return names


def _object(suite: GoalSuite, results: list[Reached], films: list[str]) -> dict[str, object]:
    return {
        "env_id": suite.env.id,
        "pairs": len(suite.pairs),
        "solved_starts_left_out": suite.pairs.solved,
        "seed": suite.seed,
        "decisions": suite.budget,
        "reached": suite.world.reached,
        "goals": [found.as_json() for found in results],
        "films": films,
    }


OBJECTIVE_TEXT = {
    "none": "",
    "geodesic": "the way along what was seen",
    "distance": "the distance of latents",
    "probability": "log q given the goal's frame",
    "true": "the distance of true states",
}
"""The objectives of plans, in words."""


def _table(suite: GoalSuite, results: list[Reached], films: list[str]) -> str:
    kinds = sorted(set(suite.pairs.kinds))
    groups = "".join(f"{kind:>12}" for kind in kinds)
    lines = [
        f"{suite.env.id}, {len(suite.pairs)} held-out pairs, seed {suite.seed} ({suite.pairs.solved} more were solved "
        "from the start, and left out)",
        f"reached: {suite.world.reached}, after one of {suite.budget} decisions",
        f"{'agent':16}{'plans by':30}{'reached':>8}{'95 % interval':>15}{groups}{'at the end':>12}{'decisions':>11}"
        f"{'a second':>10}",
    ]
    for found in results:
        entry = found.as_json()
        low, high = entry["ci95"]
        shares = "".join(f"{entry['groups'][kind]['success']:12.0%}" for kind in kinds)
        median = "" if entry["median_decisions"] is None else f"{entry['median_decisions']:.0f}"
        name = f"{found.agent}, oracle" if found.objective == "true" else found.agent
        lines.append(
            f"{name:16}{OBJECTIVE_TEXT[found.objective]:30}"
            f"{entry['success']:8.0%}{f'{low:.0%} to {high:.0%}':>15}{shares}"
            f"{entry['held']:12.0%}{median:>11}{entry['decisions_per_second']:10.0f}"
        )
    return "\n".join([*lines, *(f"The film is in {path}" for path in films)])
