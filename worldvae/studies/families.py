"""Model families trained on one task for the same time, and compared by the same measurements."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldvae.bench.measures import DREAM_STEPS, DREAMS, imagination
from worldvae.bench.timing import median_seconds
from worldvae.errors import UserError
from worldvae.evaluation.held_out import held_out_rows
from worldvae.evaluation.play import evaluate
from worldvae.films.film import film, side_by_side
from worldvae.films.open_loop import OpenLoop, open_loop
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.runs.run import Run, load_with_state
from worldvae.runs.settings import RunConfig
from worldvae.studies.trainings import Trainings, minutes_of
from worldvae.system.json_file import plain, write_json
from worldvae.types import Batch, Kind, weakest

CONTEXT, HORIZON, EPISODES = 5, 40, 24
HORIZONS = (1, 5, 15, 40)


@dataclass(frozen=True)
class FamilyRow:
    """The results of one family.

    Attributes:
        family: its name.
        failed: why there are no results, or None.
        minutes: training time.
        updates: updates of the world model in this time.
        environment_steps: number of environment steps in this time.
        share: finished share of the config's `train.steps`, over which step sizes fall; 1 means a complete training.
        parameters: number of parameters of the world model.
        ret: mean return of its actor on held-out episodes.
        ci95: its 95 % bootstrap interval.
        psnr: PSNR in dB of its dreams at each of `HORIZONS`, on episodes that are the same for all families.
        bound: log p(x, r, c) in nats per row, on the same episodes.
        bound_kind: what kind of number the bound is.
        frames: the likelihood of frames in the bound; bounds with different likelihoods cannot be compared.
        steps_per_second: imagined steps per second with the actor, 1024 dreams of 15 steps.
    """

    family: str
    failed: str | None = None
    minutes: float = 0.0
    updates: int = 0
    environment_steps: int = 0
    share: float = 0.0
    parameters: int = 0
    ret: float = math.nan
    ci95: tuple[float, float] = (math.nan, math.nan)
    psnr: tuple[float, ...] = ()
    bound: float = math.nan
    bound_kind: Kind | None = None
    frames: str | None = None
    steps_per_second: float = math.nan


@dataclass(frozen=True)
class Comparison:
    """The rows of all families, and two baselines.

    Attributes:
        rows: results of the families.
        random_mean: return of uniform actions on the same held-out episodes.
        psnr_copy_last: PSNR of repeating the last observed frame.
        film: film of the same dreams by all families; None if the world has no frames, or nothing was trained.
    """

    rows: list[FamilyRow]
    random_mean: float
    psnr_copy_last: tuple[float, ...]
    film: str | None

    def as_json(self) -> dict[str, Any]:
        """Return plain lists and numbers; missing results are None."""
        out: dict[str, Any] = plain(asdict(self))
        return out


def compare_families(
    trainings: Trainings,
    config: RunConfig,
    families: Sequence[str],
    episodes: int = 20,
    tell: Callable[[str], None] = print,
) -> Comparison:
    """Train every family for the same time, and measure all of them on the same held-out episodes.

    An interrupted comparison continues where it stopped. A family that cannot be trained or measured is a row that says
    why.

    Args:
        trainings: how they are trained.
        config: config of the task, resolved.
        families: names in configs/family.
        episodes: number of held-out episodes for the return.
        tell: called with progress messages.

    Raises:
        UserError: If the folder holds another comparison, or cannot be written.
        KeyboardInterrupt: If it was interrupted.
    """
    _begin(trainings, config)
    failures = trainings.run(families, tell)
    runs, parts = _opened(trainings, families, failures)
    found: dict[str, FamilyRow] = {}
    dreams: dict[str, OpenLoop] = {}
    floor = math.nan
    rows = Batch.cat([rows for rows, _ in parts], dim=0) if parts else None
    for name in families:
        if rows is None or name not in runs:
            found[name] = FamilyRow(name, failures[name] or "no family could be played with")
            continue
        tell(f"{name}: measuring")
        run, updates = runs[name]
        try:
            row, dreams[name], floor = _measure(
                name, run, rows, torch.cat([lengths for _, lengths in parts]), episodes, trainings.seed
            )
        except Exception as error:  # one family's failure must not lose the results of the others
            found[name] = FamilyRow(name, _reason(error))
            continue
        share = min(1.0, run.steps / config.train.steps)
        found[name] = replace(row, minutes=minutes_of(run.folder), updates=updates, share=share)
    copied = next((_at(dream.psnr_copy_last) for dream in dreams.values()), ())
    return Comparison(list(found.values()), floor, copied, _film(dreams, trainings.out / "dreams.gif"))


def _reason(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _begin(trainings: Trainings, config: RunConfig) -> None:
    """Create the folder of a comparison, or check that it holds the same comparison."""
    path = trainings.out / "settings.json"
    asked = {"minutes": trainings.minutes, "jobs": trainings.jobs, "config": asdict(config)}
    if not path.exists():
        write_json(path, asked)
    elif json.loads(path.read_text(encoding="utf-8")) != json.loads(json.dumps(asked, default=str)):
        raise UserError(
            f"{trainings.out} holds a comparison with other settings ({path}): ask for the same, or take another --out."
        )


def _opened(
    trainings: Trainings, families: Sequence[str], failures: dict[str, str | None]
) -> tuple[dict[str, tuple[Run, int]], list[tuple[Batch, Int[Tensor, " episode"]]]]:
    """Open the runs, and play the episodes on which all are measured; failures are noted in `failures`.

    Every family's actor plays some of the episodes, so that no family is measured on its own episodes alone.
    """
    runs: dict[str, tuple[Run, int]] = {}
    parts = []
    trained = [name for name in families if failures[name] is None]
    for i, name in enumerate(trained):
        try:
            run, state = load_with_state(trainings.out / name)
            each = math.ceil(EPISODES / len(trained))
            parts.append(held_out_rows(run, CONTEXT + HORIZON, each, trainings.seed + i))
            runs[name] = run, state["updates"]
        except Exception as error:  # a family that cannot be measured costs no other
            failures[name] = _reason(error)
    return runs, parts


@torch.no_grad()
def _measure(
    name: str, run: Run, rows: Batch, lengths: Int[Tensor, " episode"], episodes: int, seed: int
) -> tuple[FamilyRow, OpenLoop, float]:
    model = run.model
    dream = open_loop(model, rows, lengths, CONTEXT, HORIZON)
    result = evaluate(run.agent, run.config.env, episodes, seed)
    states = model.observe(rows[:, :CONTEXT].to(run.device), mode=True).posterior.flatten().detach()
    work = imagination(run, states, torch.Generator(run.device).manual_seed(0))
    row = FamilyRow(
        name,
        environment_steps=run.steps,
        parameters=sum(p.numel() for p in model.parameters()),
        ret=result.mean,
        ci95=result.ci95,
        psnr=_at(dream.psnr),
        bound=float(bound(run, rows, lengths, seed).mean()),
        bound_kind=bound_kind(_sequential(run)),
        frames=run.config.model.frames if dream.pixels else None,
        steps_per_second=DREAMS * DREAM_STEPS / median_seconds(work, run.device),
    )
    if not math.isfinite(row.ret + row.bound):
        raise ValueError("the return or the bound is not a number")
    return row, dream, result.random_mean


@torch.no_grad()
def bound(run: Run, rows: Batch, lengths: Int[Tensor, " episode"], seed: int) -> Float[Tensor, " row"]:
    """Return the terms of the ELBO of all existing rows, in nats, from one draw of q each."""
    model = _sequential(run)
    rows = rows.to(run.device)
    valid = torch.arange(rows.reward.shape[1]) <= lengths.unsqueeze(1)
    rows = replace(rows, is_first=rows.is_first | ~valid.to(run.device))  # no smoother may read beyond an episode's end
    observed = model.observe(rows, generator=torch.Generator(run.device).manual_seed(seed))
    return model.elbo(rows, observed).bound.cpu()[valid]


def _sequential(run: Run) -> SequentialVAE:
    if not isinstance(run.model, SequentialVAE):
        raise ValueError(f"a {type(run.model).__name__} has no evidence lower bound: model.kind=sequential_vae has one")
    return run.model


def bound_kind(model: SequentialVAE) -> Kind:
    """Return what kind of number the ELBO of a model is: an estimate if log Z is estimated."""
    kind = weakest("lower_bound", model.density_kind)
    return "estimate" if kind == "unnormalised" else kind


def _at(values: list[float]) -> tuple[float, ...]:
    return tuple(values[h - 1] for h in HORIZONS if h <= len(values))


def _film(dreams: dict[str, OpenLoop], path: Path) -> str | None:
    """Write a film of the same episodes as every family dreams them."""
    shown = {name: dream for name, dream in dreams.items() if dream.pixels}
    if not shown:
        return None
    first = next(iter(shown.values()))
    pick = torch.linspace(0, len(first.truth) - 1, 4).round().long()  # of the first family, the last, and between
    rows = {"true": first.truth[pick]} | {name: dream.dream[pick] for name, dream in shown.items()}
    return str(film(path, side_by_side(rows, CONTEXT, error=False, scale=1)))
