"""`worldvae bench`: how fast is this machine, and how much of it do training, dreaming and planning use?"""

import json
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table

from worldvae.bench.limits import Limits, machine, measure_limits
from worldvae.bench.measures import Bench, Measure
from worldvae.commands.train import find_or_make
from worldvae.config import load_config
from worldvae.errors import UserError
from worldvae.run import RunConfig, pick_device


def bench(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...",
            help="As for train; what is measured is a run of this config. Default: pendulum.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Spent on each figure.")] = 3.0,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; default: all cores.")] = None,
    compare: Annotated[Path | None, typer.Option(help="FILE with the --json of an earlier bench.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Write a trace of one update to FILE.json instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
) -> None:
    """Measure this machine's speed: train, imagine, plan, infer, replay, and its share of what is possible."""
    if not seconds > 0 or (threads is not None and threads < 1):
        raise UserError(f"--seconds {seconds:g} and --threads {threads} must be above 0.")
    before = None if compare is None else _read(compare)
    if profile is not None and profile.suffix != ".json":
        raise UserError(f"--profile {profile} must end in .json: a trace for chrome://tracing or ui.perfetto.dev.")
    if threads is not None:
        torch.set_num_threads(threads)
    given = arguments or []
    name, overrides = (given[0], given[1:]) if given and "=" not in given[0] else ("pendulum", given)
    config = load_config(RunConfig, [find_or_make(name)], overrides)
    with tempfile.TemporaryDirectory(prefix="worldvae-bench-") as folder:
        if profile is not None:
            with closing(Bench(config, Path(folder), seconds)) as bench:
                bench.trace(profile)
            print(f"One update is in {profile}: open it at ui.perfetto.dev or in chrome://tracing.", file=sys.stderr)
            return
        limits = measure_limits(pick_device(config.device), seconds / 2)
        with closing(Bench(config, Path(folder), seconds)) as bench:
            found = _measured(bench, limits)
            head = {"case": name, "machine": machine(bench.device) | _limits(limits), "model": bench.parameters()}
    if as_json:
        print(json.dumps(_object(head, found)))
    else:
        _show(head, found, before)


def _measured(bench: Bench, limits: Limits) -> list[Measure]:
    found = []
    for measure in bench.measures(limits):
        found.append(measure)
        if sys.stderr.isatty():
            print(f"{measure.name}: {measure.value:.4g} {measure.unit}", file=sys.stderr, flush=True)
    return found


def _limits(limits: Limits) -> dict[str, Any]:
    rates = {f"matmul_{dtype}_gflops": rate / 1e9 for dtype, rate in limits.matmul.items()}
    rates |= {f"conv_{dtype}_gflops": rate / 1e9 for dtype, rate in limits.conv.items()}
    return rates | {"copy_gb_per_second": limits.copy / 1e9}


def _object(head: dict[str, Any], found: list[Measure]) -> dict[str, Any]:
    """Return the contract's object: {machine, train{...}, imagine{...}, plan{...}, infer{...}, replay{...}, ...}."""
    out = dict(head)
    for measure in found:
        section, key = measure.name.split(".")
        out.setdefault(section, {})[key] = measure.value
        if measure.share is not None:
            known = {"train.ms_per_update", "imagine.steps_per_second", "replay.sequences_per_second"}
            out[section]["roofline_share" if measure.name in known else f"{key}_roofline_share"] = measure.share
    return out


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--compare {path} cannot be read as JSON ({error}): give a file made with --json.") from None
    if not isinstance(found, dict) or "train" not in found:
        raise UserError(f"--compare {path} is not the JSON of a bench: make one with worldvae bench --json > FILE.")
    return found


def _show(head: dict[str, Any], found: list[Measure], before: dict[str, Any] | None) -> None:
    console = Console(width=None if sys.stdout.isatty() else 150)
    here = head["machine"]
    console.print(
        f"{head['case']} on {here['cpu'] if here['device'] == 'cpu' else here['device']}, {here['threads']} threads, "
        f"torch {here['torch']}. Limits: matrix products {here['matmul_float32_gflops']:.0f} GFLOP/s in float32 and "
        f"{here['matmul_bfloat16_gflops']:.0f} in bfloat16, convolutions {here['conv_float32_gflops']:.0f} and "
        f"{here['conv_bfloat16_gflops']:.0f}, copies {here['copy_gb_per_second']:.1f} GB/s.",
        markup=False,
        highlight=False,
    )
    parts = ", ".join(f"{part} {number / 1e6:.2f} M" for part, number in head["model"].items())
    console.print(f"Parameters: {parts}.", markup=False, highlight=False)
    table = Table(box=None, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("of the limit", justify="right")
    if before is not None:
        table.add_column("before", justify="right")
        table.add_column("now / before", justify="right")
    table.add_column("what")
    for measure in found:
        share = "" if measure.share is None else f"{100 * measure.share:.0f} %"
        row = [measure.name, f"{measure.value:.4g}", measure.unit, share]
        if before is not None:
            section, key = measure.name.split(".")
            old = before.get(section, {}).get(key)
            row += ["", ""] if not old else [f"{old:.4g}", f"{measure.value / old:.2f}"]
        table.add_row(*row, measure.words)
    console.print(table)
    console.print("Shares are of the matrix-product limit (replay: of the copy limit). Medians after a warm-up.")
