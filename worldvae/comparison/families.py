"""Model families trained on one task for the same time, and asked the same questions."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldvae.bench.timing import median_seconds
from worldvae.dream import OpenLoop, open_loop
from worldvae.errors import UserError
from worldvae.evaluation import evaluate, held_out_rows
from worldvae.film import film, side_by_side
from worldvae.objectives import elbo
from worldvae.run import Run, load_with_state
from worldvae.types import Batch, Kind

CONTEXT, HORIZON, EPISODES = 5, 40, 24
HORIZONS = (1, 5, 15, 40)
STARTS, STEPS = 1024, 15


@dataclass(frozen=True)
class FamilyRow:
    """What one family came to.

    Attributes:
        family: its name.
        failed: why there is nothing else, or None.
        updates: of the world model in the time that was given.
        environment_steps: frames that it has seen in this time.
        parameters: of the world model.
        ret: mean return of its actor on held-out episodes.
        ci95: 95 % bootstrap interval of it.
        psnr: in dB, of its dreams at each of `HORIZONS`, on episodes that are the same for all families.
        bound: log p(x, r, c) in nats per row, on the same episodes.
        bound_kind: what kind of number that is.
        steps_per_second: imagined with the actor, 1024 dreams of 15 steps.
    """

    family: str
    failed: str | None = None
    updates: int = 0
    environment_steps: int = 0
    parameters: int = 0
    ret: float = math.nan
    ci95: tuple[float, float] = (math.nan, math.nan)
    psnr: tuple[float, ...] = ()
    bound: float = math.nan
    bound_kind: Kind = "lower_bound"
    steps_per_second: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """Every family's row, and the floors beneath them.

    Attributes:
        rows: of the families.
        random_mean: return of uniform actions on the same held-out episodes.
        psnr_copy_last: of repeating the last frame that was seen.
        film: of the same dreams by all families; None where the world has no frames, or nothing was trained.
    """

    rows: list[FamilyRow]
    random_mean: float
    psnr_copy_last: tuple[float, ...]
    film: str | None

    def as_json(self) -> dict[str, Any]:
        """Return plain lists and numbers; what is not there is None."""
        out: dict[str, Any] = _plain(asdict(self))
        return out


def compare_families(
    config: str,
    families: Sequence[str],
    out: Path,
    *,
    minutes: float = 10.0,
    seed: int = 0,
    jobs: int = 1,
    overrides: Sequence[str] = (),
    episodes: int = 20,
    tell: Callable[[str], None] = print,
) -> Comparison:
    """Train every family for the same time, and measure them on the same held-out episodes.

    Each is trained by `worldvae train CONFIG family=NAME --minutes M` in a process of its own. A comparison that was
    interrupted goes on where it stopped.

    Args:
        config: what `worldvae train` takes.
        families: names in configs/family.
        out: the folder of the runs, one of each family's name.
        minutes: of training, the same for all.
        seed: of all trainings and of all held-out episodes.
        jobs: trainings side by side; each has the same share of the cores.
        overrides: further settings, the same for all.
        episodes: held-out episodes that give the return.
        tell: says how it goes.

    Raises:
        UserError: If `out` holds another comparison, or cannot be written.
    """
    asked = {"config": config, "overrides": list(overrides), "minutes": minutes, "seed": seed, "jobs": jobs}
    _begin(out, asked)

    def work(name: str) -> str | None:
        found = _train(config, name, out / name, minutes, seed, jobs, overrides)
        tell(f"{name}: {found or 'trained'}")
        return found

    pool = ThreadPoolExecutor(jobs)  # of threads, that wait for processes
    try:
        failures = dict(zip(families, pool.map(work, families), strict=True))
    finally:
        pool.shutdown(cancel_futures=True)
    runs = {name: load_with_state(out / name) for name in families if failures[name] is None}
    rows, lengths = _episodes([run for run, _ in runs.values()], seed)
    found: dict[str, FamilyRow] = {}
    dreams: dict[str, OpenLoop] = {}
    floor = math.nan
    for name in families:
        if name not in runs:
            found[name] = FamilyRow(name, failures[name])
            continue
        tell(f"{name}: measuring")
        assert rows is not None
        run, state = runs[name]
        found[name], dreams[name], floor = _measure(name, run, rows, lengths, episodes, seed)
        found[name] = replace(found[name], updates=state["updates"])
    copy = next((_at(dream.psnr_copy_last) for dream in dreams.values()), ())
    return Comparison(list(found.values()), floor, copy, _film(dreams, out / "dreams.gif"))


def _begin(out: Path, asked: dict[str, Any]) -> None:
    """Make the folder of a comparison, or see that it is the one that was begun there."""
    settings = out / "settings.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not settings.exists():
            settings.write_text(json.dumps(asked))
    except OSError as error:
        raise UserError(f"cannot write to {out} ({error.strerror}): choose another folder with --out.") from error
    if (before := json.loads(settings.read_text())) != asked:
        differ = ", ".join(f"{name}={before.get(name)}" for name in asked if before.get(name) != asked[name])
        raise UserError(f"{out} holds a comparison with {differ}: ask for the same, or choose another --out.")


def _train(
    config: str, family: str, folder: Path, minutes: float, seed: int, jobs: int, overrides: Sequence[str]
) -> str | None:
    """Train a run for what is left of its time; return why it failed, or None."""
    left = minutes - _minutes(folder)
    mark, log = folder / "compared", folder.with_suffix(".log")
    if mark.exists() or left <= 0:
        return None
    command = [sys.executable, "-m", "worldvae", "train", "--minutes", str(left)]
    if (folder / "checkpoints").exists():
        command += ["--resume", str(folder)]
    else:
        command += ["--out", str(folder), "--seed", str(seed)]
        command += [config, f"family={family}", *overrides, "train.eval_episodes=0"]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // jobs))}
    with log.open("a") as file:
        done = subprocess.run(command, env=os.environ | threads, stdout=file, stderr=file, check=False)
    if done.returncode == 0:
        mark.touch()
        return None
    said = [line for line in log.read_text().splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    return f"{said[-1].removeprefix('worldvae: ')} ({log})"


def _minutes(folder: Path) -> float:
    """Return how long a run was trained."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return float(json.loads(lines[-1])["time"]) / 60 if lines else 0.0


def _episodes(runs: list[Run], seed: int) -> tuple[Batch | None, Int[Tensor, " episode"]]:
    """Held-out episodes that every family's actor has a share in: none is asked only about its own world."""
    if not runs:
        return None, torch.zeros(0, dtype=torch.int64)
    each = math.ceil(EPISODES / len(runs))
    parts = [held_out_rows(run, CONTEXT + HORIZON, each, seed + i) for i, run in enumerate(runs)]
    return Batch.cat([rows for rows, _ in parts], dim=0), torch.cat([lengths for _, lengths in parts])


def _measure(
    name: str, run: Run, rows: Batch, lengths: Int[Tensor, " episode"], episodes: int, seed: int
) -> tuple[FamilyRow, OpenLoop, float]:
    model = run.model
    dream = open_loop(model, rows, lengths, CONTEXT, HORIZON)
    result = evaluate(run.agent, run.config.env, episodes, seed)
    row = FamilyRow(
        name,
        environment_steps=run.steps,
        parameters=sum(p.numel() for p in model.parameters()),
        ret=result.mean,
        ci95=result.ci95,
        psnr=_at(dream.psnr),
        bound=float(bound(run, rows, lengths, seed).mean()),
        bound_kind="lower_bound" if model.prior.kind == "exact" else model.prior.kind,
        steps_per_second=_imagined(run, rows),
    )
    failed = "the return or the bound is not a number" if not math.isfinite(row.ret + row.bound) else None
    return replace(row, failed=failed), dream, result.random_mean


@torch.no_grad()
def bound(run: Run, rows: Batch, lengths: Int[Tensor, " episode"], seed: int) -> Float[Tensor, " row"]:
    """Return the terms of the evidence lower bound of all rows that exist, in nats, from one draw of q each."""
    model = run.model
    rows = rows.to(run.device)
    valid = torch.arange(rows.reward.shape[1]) <= lengths.unsqueeze(1)
    rows = replace(rows, is_first=rows.is_first | ~valid.to(run.device))  # no smoother looks behind an episode's end
    observed = model.observe(rows, generator=torch.Generator(run.device).manual_seed(seed))
    return elbo(model, rows, observed).bound.cpu()[valid]


def _imagined(run: Run, rows: Batch) -> float:
    model, actor = run.model, run.actor_critic.actor
    generator = torch.Generator(run.device).manual_seed(0)
    flat = model.observe(rows[:, :CONTEXT].to(run.device), mode=True).posterior.flatten()
    starts = flat[torch.arange(STARTS, device=run.device) % flat.memory.shape[0]]

    def work() -> None:
        with torch.no_grad(), model.autocast():
            model.imagine(starts, lambda state: actor(state.features).draw(generator), STEPS, generator)

    return STARTS * STEPS / median_seconds(work, run.device)


def _at(values: list[float]) -> tuple[float, ...]:
    return tuple(values[h - 1] for h in HORIZONS if h <= len(values))


def _film(dreams: dict[str, OpenLoop], path: Path) -> str | None:
    """Film the same episodes as every family dreams them."""
    shown = {name: dream for name, dream in dreams.items() if dream.pixels}
    if not shown:
        return None
    first = next(iter(shown.values()))
    pick = torch.linspace(0, len(first.truth) - 1, 4).round().long()  # of the first family, the last, and between
    rows = {"true": first.truth[pick]} | {name: dream.dream[pick] for name, dream in shown.items()}
    return str(film(path, side_by_side(rows, CONTEXT, error=False, scale=1)))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
