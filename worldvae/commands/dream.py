"""`worldvae dream RUN`: what does the model imagine, and how long is it right?"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from worldvae.commands.record import Recorder, RecordFile
from worldvae.errors import UserError
from worldvae.evaluation.held_out import held_out_dream
from worldvae.films.film import check_film_name, film
from worldvae.films.open_loop import OpenLoop
from worldvae.runs.run import Run, load


def dream(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.", show_default=False)],
    context: Annotated[int, typer.Option(help="Frames the model sees before it dreams.")] = 5,
    horizon: Annotated[int, typer.Option(help="Steps it dreams.")] = 40,
    episodes: Annotated[int, typer.Option(help="Held-out episodes the numbers are means of.")] = 16,
    out: Annotated[Path | None, typer.Option(help="FILE.gif, .webp, .mp4 or .png; default: RUN/dreams/.")] = None,
    render: Annotated[
        int, typer.Option(help="Strides in which a diffusion decoder renders frames (0: the mean alone).")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the episodes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
    record: RecordFile = None,
) -> None:
    """Film a dream beside what really happened, and measure it against repeating the last frame."""
    if min(context, horizon, episodes) < 1:
        raise UserError(f"context={context}, horizon={horizon} and episodes={episodes} must be at least 1.")
    if out is not None:
        check_film_name(out)
    recorder = Recorder(record)
    opened = load(run)
    opened.check_shows()
    _check_render(opened, render)
    opened.check_env()
    found = held_out_dream(opened, context, horizon, episodes, seed, render)
    if not bool(found.valid.any()):
        raise UserError(f"every held-out episode ended within {context} frames: take a smaller --context.")
    if found.valid.shape[1] < horizon:
        print(f"Every episode was over after {found.valid.shape[1]} of {horizon} steps.", file=sys.stderr)
    path = film(out or opened.folder / "dreams" / f"context{context}_horizon{horizon}.gif", found.film())
    result = {"env_id": opened.config.env.id} | found.as_json() | {"file": str(path)}
    print(json.dumps(result) if as_json else _table(found, path))
    recorder.keep(result)


def _check_render(run: Run, render: int) -> None:
    frames = run.config.model.frames if run.model.observation_layout.pixels is not None else "none"
    if render < 0 or (render and frames != "diffusion"):
        raise UserError(
            f"--render {render} of a run with model.frames={frames}: a diffusion decoder renders in 1 or more strides. "
            "Train with family=diffusion_decoder on frames, or leave --render out."
        )


def _table(found: OpenLoop, path: Path) -> str:
    horizon = found.valid.shape[1]
    what = "frame " if found.pixels else "vector"
    lines = [f"horizon   dream PSNR   copying the last {what}   reward error   episodes"]
    for h in sorted({h for h in (1, 2, 5, 10, 15, 20, 30, 40, 60, 100, horizon) if h <= horizon}):
        k = h - 1
        lines.append(
            f"{h:7d} {found.psnr[k]:9.1f} dB {found.psnr_copy_last[k]:17.1f} dB "
            f"{found.reward_mae[k]:17.3f} {int(found.valid[:, k].sum()):10d}"
        )
    return "\n".join([*lines, f"The film is in {path}"])
