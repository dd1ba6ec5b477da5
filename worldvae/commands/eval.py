"""`worldvae eval RUN`: how well does an agent do on a trained model?"""

import json
from pathlib import Path
from typing import Annotated

import typer

from worldvae.errors import UserError
from worldvae.evaluation import Evaluation, evaluate
from worldvae.run import AGENTS, load


def eval_(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    agent: Annotated[str, typer.Option(help=f"What acts: {', '.join(AGENTS)}.")] = "actor",
    episodes: Annotated[int, typer.Option(help="Held-out episodes.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the episodes and of the agent.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Play held-out episodes with an agent on a trained world model."""
    if episodes < 1:
        raise UserError(f"--episodes {episodes} is not a positive number of episodes.")
    opened = load(run)
    opened.check_env()
    result = evaluate(opened.make_agent(agent), opened.config.env, episodes, seed)
    print(json.dumps(result.as_json()) if as_json else _table(result))


def _table(result: Evaluation) -> str:
    low, high = result.ci95
    return (
        f"{result.env_id}, agent {result.agent}, {len(result.returns)} episodes, seed {result.seed}\n"
        f"  mean return          {result.mean:10.1f}   (95 % interval {low:.1f} to {high:.1f})\n"
        f"  worst and best       {min(result.returns):10.1f} {max(result.returns):10.1f}\n"
        f"  uniform actions      {result.random_mean:10.1f}   (the same episodes)\n"
        f"  decisions per second {result.decisions_per_second:10.0f}"
    )
