"""`worldvae eval RUN`: how well do agents do on a trained model?"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from worldvae.agents import Agent, PlannerAgent
from worldvae.commands.open_run import open_run
from worldvae.commands.record import Recorder, RecordFile
from worldvae.errors import UserError
from worldvae.evaluation.plan_film import film_plans
from worldvae.evaluation.play import Evaluation, evaluate_all
from worldvae.films.film import film
from worldvae.runs.run import Run
from worldvae.runs.settings import AGENTS
from worldvae.training.progress import say


def eval_(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of planners, e.g. cem.candidates=1000.")
    ] = None,
    agent: Annotated[
        str, typer.Option(help=f"What acts: {', '.join(AGENTS)}; or several: cem,actor.", metavar="NAME[,NAME]...")
    ] = "actor",
    episodes: Annotated[int, typer.Option(help="Held-out episodes, the same for every agent.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the episodes and of the agents.")] = 0,
    plan_film: Annotated[
        bool, typer.Option("--plan-film", help="Film some plans of an episode beside what then happened.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
    record: RecordFile = None,
    diagnose: Annotated[bool, typer.Option("--diagnose", "--inference", "--no-inference", hidden=True)] = False,
    goals: Annotated[bool, typer.Option("--goals", hidden=True)] = False,
) -> None:
    """Play held-out episodes with agents on a trained world model."""
    for moved, command in ((diagnose, "diagnose"), (goals, "goals")):
        if moved:
            raise UserError(f"`worldvae eval RUN --{command}` is now a command of its own: worldvae {command} {run}")
    recorder = Recorder(record)
    opened = open_run(run, settings or [], episodes, "--episodes")
    agents = _agents(opened, agent)
    planners = [one for one in agents if isinstance(one, PlannerAgent)]
    if plan_film and not planners:
        raise UserError(f"--plan-film needs an agent that plans, and --agent is {agent!r}: take --agent cem.")
    if plan_film:
        opened.check_shows()
    found = evaluate_all(agents, opened.config.env, episodes, seed, say if len(agents) > 1 else lambda text: None)
    films = {one.name: _film(opened, one, seed) for one in planners} if plan_film else {}
    result = _object(found, films)
    if as_json:
        print(json.dumps(result))
    else:
        print(_table(found[0]) if len(found) == 1 else _comparison(found))
        for name, path in films.items():
            print(f"Plans of {name} beside what then happened: {path}")
    recorder.keep(result)


def _agents(run: Run, names: str) -> list[Agent]:
    given = [name.strip() for name in names.split(",")]
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise UserError(f"--agent {names} names {', '.join(twice)} twice: name each agent once.")
    return [run.make_agent(name) for name in given]


def _film(run: Run, agent: PlannerAgent, seed: int) -> str:
    found = film_plans(agent, run.config.env, seed=seed)
    return str(film(run.folder / "plans" / f"{agent.name}_seed{seed}.gif", found.film(), fps=5))


def _object(found: Sequence[Evaluation], films: dict[str, str]) -> dict[str, Any]:
    """Return the object of one agent, or one with a list of them, each compared with the first."""
    objects: list[dict[str, Any]] = [one.as_json() for one in found]
    for one, as_object in zip(found, objects, strict=True):
        if one.agent in films:
            as_object["plan_film"] = films[one.agent]
    if len(found) == 1:
        return objects[0]
    first = found[0]
    for one, as_object in zip(found[1:], objects[1:], strict=True):
        mean, interval = one.better(first)
        as_object |= {"better_than": first.agent, "difference": mean, "difference_ci95": list(interval)}
    shared = {"env_id": first.env_id, "episodes": len(first.returns), "seed": first.seed}
    return shared | {"random_mean": first.random_mean, "agents": objects}


def _table(result: Evaluation) -> str:
    low, high = result.ci95
    p50, p95, p99 = result.latency_ms
    return (
        f"{result.env_id}, agent {result.agent}, {len(result.returns)} episodes, seed {result.seed}\n"
        f"  mean return          {result.mean:10.1f}   (95 % interval {low:.1f} to {high:.1f})\n"
        f"  worst and best       {min(result.returns):10.1f} {max(result.returns):10.1f}\n"
        f"  uniform actions      {result.random_mean:10.1f}   (the same episodes)\n"
        f"  decisions per second {result.decisions_per_second:10.0f}   (episodes side by side, environment included)\n"
        f"  model steps          {result.model_steps_per_decision:10.0f}   (imagined for each decision)\n"
        f"  latency              {p50:10.1f} ms, p95 {p95:.1f}, p99 {p99:.1f}   (of a decision alone)"
    )


def _comparison(found: Sequence[Evaluation]) -> str:
    first = found[0]
    lines = [
        f"{first.env_id}, {len(first.returns)} episodes, seed {first.seed}, the same for every agent; uniform actions: "
        f"{first.random_mean:.1f}",
        f"{'agent':9} {'return':>8} {'95 % interval':>20} {'minus ' + first.agent:>13} {'95 % interval':>20} "
        f"{'decisions/s':>11} {'model steps':>11} {'p50':>7} {'p95':>7} {'p99':>7} ms",
    ]
    for one in found:
        mean, interval = one.better(first)
        minus = f"{'':13} {'':20}" if one is first else f"{mean:+13.1f} {_interval(interval):>20}"
        lines.append(
            f"{one.agent:9} {one.mean:8.1f} {_interval(one.ci95):>20} {minus} {one.decisions_per_second:11.1f} "
            f"{one.model_steps_per_decision:11.0f} " + " ".join(f"{value:7.1f}" for value in one.latency_ms)
        )
    return "\n".join(lines)


def _interval(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.1f}, {interval[1]:.1f}]"
