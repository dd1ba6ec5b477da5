"""`worldvae eval RUN`: how well does an agent do on a trained model?"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from worldvae.allocator import keep_freed_memory
from worldvae.commands.eval_goals import eval_goals
from worldvae.diagnostics import Diagnosis, Effort, check_plotting, draw_page
from worldvae.diagnostics import diagnose as examine
from worldvae.errors import UserError
from worldvae.evaluation import Evaluation, evaluate, witness
from worldvae.run import AGENTS, Run, load

EFFORT = Effort()


def eval_(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    agent: Annotated[str, typer.Option(help=f"What acts: {', '.join(AGENTS)}.")] = "actor",
    episodes: Annotated[int, typer.Option(help="Held-out episodes.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the episodes and of the agent.")] = 0,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Examine the world model, with plots.")] = False,
    inference: Annotated[
        bool, typer.Option("--inference/--no-inference", help="Of --diagnose: what better inference would gain (slow).")
    ] = True,
    goals: Annotated[bool, typer.Option("--goals", help="Plan towards goal images (--episodes: pairs).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Play held-out episodes with an agent on a trained world model."""
    if episodes < 1:
        raise UserError(f"--episodes {episodes} is not a positive number of episodes.")
    keep_freed_memory()
    opened = load(run)
    opened.check_env()
    if goals:
        eval_goals(opened, agent, episodes, seed, as_json)
        return
    if diagnose:
        _diagnose(opened, agent, episodes, seed, EFFORT if inference else None, as_json)
        return
    result = evaluate(opened.make_agent(agent), opened.config.env, episodes, seed)
    print(json.dumps(result.as_json()) if as_json else _table(result))


def _diagnose(run: Run, agent: str, episodes: int, seed: int, effort: Effort | None, as_json: bool) -> None:
    """Print and draw what the diagnostics say of the model on episodes that `agent` plays."""
    check_plotting()
    folder = run.folder / "diagnosis"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): a diagnosis is kept there.") from None
    seen = witness(run, run.make_agent(agent), episodes, seed)
    try:
        generator = torch.Generator().manual_seed(seed)
        found = examine(run.model, seen.rows, seen.valid, generator, seen.truth, effort=effort)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    page, numbers = folder / f"{agent}_seed{seed}.png", folder / f"{agent}_seed{seed}.json"
    title = f"{run.folder.name}: {run.config.env.id}, {episodes} episodes of {agent}"
    head = {"env_id": run.config.env.id, "agent": agent, "episodes": episodes, "seed": seed}
    whole = head | found.as_json() | {"file": str(page)}
    numbers.write_text(json.dumps(whole, allow_nan=False))
    draw_page(found, page, title)
    print(json.dumps(whole) if as_json else _findings(found, page, numbers))


def _findings(found: Diagnosis, page: Path, numbers: Path) -> str:
    lines = [
        f"latents              {found.collapse.verdict}: {found.collapse.active:.0%} of z active, "
        f"KL {found.collapse.kl:.2f} nats per row (prior: {found.prior_kind})",
        f"prior hole           log-ratio {found.hole['log_ratio']:.3f} nats, MMD\u00b2 {found.hole['mmd']:.4f}; "
        f"given the memory {found.conditional_hole:.3f} nats (estimates; 0: what is imagined is what is inferred)",
    ]
    c = found.calibration
    for h in [] if c is None else [h for h in (1, 5, 15) if h <= len(c.coverage)]:
        assert c is not None
        lines.append(
            f"{h:2d} steps ahead       {c.coverage[h - 1]:.0%} inside the {c.level:.0%} interval, "
            f"spread {c.spread[h - 1]:.3f}, error {c.skill[h - 1]:.3f}, CRPS {c.crps[h - 1]:.3f}"
        )
    if found.probe is not None:
        lines.append("its vector, linear   R\u00b2 " + ", ".join(f"{value:.2f}" for value in found.probe))
    lines += _inference(found)
    return "\n".join([*lines, f"The plots are in {page}, the numbers in {numbers}"])


def _inference(found: Diagnosis) -> list[str]:
    lines = []
    if found.gaps is not None:
        g = found.gaps
        lines.append(
            f"the bound lacks      {g.amortisation:.3f} by amortisation, {g.conditioning:.3f} by conditioning, "
            f"{g.approximation:.3f} by approximation (estimates, nats per row, of {g.slices} slices of {g.rows} rows)"
        )
    lines += [
        f"one row inferred     {way.gap:.3f} nats below log p, {way.milliseconds:.2f} ms, "
        f"{way.decoder_calls} decoded: {way.name}"
        for way in found.inference or []
    ]
    reasons = [f"{name}: {why}" for name, why in found.left_out.items() if why != "not asked"]
    return [*lines, *(f"left out             {reason}" for reason in reasons)]


def _table(result: Evaluation) -> str:
    low, high = result.ci95
    return (
        f"{result.env_id}, agent {result.agent}, {len(result.returns)} episodes, seed {result.seed}\n"
        f"  mean return          {result.mean:10.1f}   (95 % interval {low:.1f} to {high:.1f})\n"
        f"  worst and best       {min(result.returns):10.1f} {max(result.returns):10.1f}\n"
        f"  uniform actions      {result.random_mean:10.1f}   (the same episodes)\n"
        f"  decisions per second {result.decisions_per_second:10.0f}"
    )
