"""`worldvae diagnose RUN`: is the world model itself any good, whatever an agent earns with it?"""

import json
from pathlib import Path
from typing import Annotated

import torch
import typer

from worldvae.commands.open_run import open_run
from worldvae.commands.record import Recorder, RecordFile
from worldvae.diagnostics import Diagnosis, Effort, check_plotting, draw_page
from worldvae.diagnostics import diagnose as examine
from worldvae.errors import UserError
from worldvae.evaluation.held_out import held_out_episodes
from worldvae.runs.settings import AGENTS

EFFORT = Effort()


def diagnose(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of planners, e.g. cem.candidates=1000.")
    ] = None,
    agent: Annotated[str, typer.Option(help=f"Plays the episodes: {', '.join(AGENTS)}.", metavar="NAME")] = "actor",
    episodes: Annotated[int, typer.Option(help="Held-out episodes that the model is examined on.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the episodes and of the agent.")] = 0,
    inference: Annotated[
        bool, typer.Option("--inference/--no-inference", help="What better inference would gain (slow).")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
    record: RecordFile = None,
) -> None:
    """Examine the world model of a run: which latents are used, is the prior right, are its predictions honest?

    What a kind of model does not have is left out, and the reason given.
    """
    recorder = Recorder(record)
    opened = open_run(run, settings or [], episodes, "--episodes")
    check_plotting()
    folder = opened.folder / "diagnosis"
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder} ({error.strerror}): a diagnosis is kept there.") from None
    seen = held_out_episodes(opened, opened.make_agent(agent), episodes, seed)
    try:
        generator = torch.Generator().manual_seed(seed)
        effort = EFFORT if inference else None
        found = examine(opened.model, seen.rows, seen.valid, generator, seen.vector, effort=effort)
    except ValueError as error:
        raise UserError(f"{error}.") from None
    page, numbers = folder / f"{agent}_seed{seed}.png", folder / f"{agent}_seed{seed}.json"
    title = f"{opened.folder.name}: {opened.config.env.id}, {episodes} episodes of {agent}"
    head = {"env_id": opened.config.env.id, "agent": agent, "episodes": episodes, "seed": seed}
    whole = head | found.as_json() | {"file": str(page)}
    numbers.write_text(json.dumps(whole, allow_nan=False), encoding="utf-8")
    draw_page(found, page, title)
    print(json.dumps(whole) if as_json else _findings(found, page, numbers))
    recorder.keep(whole)


def _findings(found: Diagnosis, page: Path, numbers: Path) -> str:
    lines = []
    if found.collapse is not None:
        lines.append(
            f"latents              {found.collapse.verdict}: {found.collapse.active:.0%} of z active, "
            f"KL {found.collapse.kl:.2f} nats per row (prior: {found.prior_kind})"
        )
    if found.hole is not None:
        lines.append(
            f"prior hole           log-ratio {found.hole['log_ratio']:.3f} nats, MMD\u00b2 {found.hole['mmd']:.4f}; "
            f"given the memory {found.conditional_hole:.3f} nats (estimates; 0: what is imagined is what is inferred)"
        )
    lines.append(f"features             {found.features.words}")
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
    return [*lines, *_left_out(found)]


def _left_out(found: Diagnosis) -> list[str]:
    """Return a line for each reason, with the names of all that is left out for it."""
    reasons: dict[str, list[str]] = {}
    for name, why in found.left_out.items():
        if why != "not asked":
            reasons.setdefault(why, []).append(name)
    return [f"left out             {', '.join(names)}: {why}" for why, names in reasons.items()]
