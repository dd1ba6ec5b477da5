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

from worldvae.bench.limits import Limits, machine, measure_limits, unrest
from worldvae.bench.measures import Bench, Measure
from worldvae.commands.record import Recorder, RecordFile
from worldvae.config import config_names
from worldvae.errors import UserError
from worldvae.runs.settings import configure, find_or_make
from worldvae.system.cores import usable_cores

MAX_LIMIT_CHANGE = 1.25  # factor by which the limits of a quiet machine never change
BENCH_CONFIGS = [f"bench/{name}" for name in config_names("bench")]


def bench(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...",
            help=f"As for train, or one of {', '.join(BENCH_CONFIGS)}; default: pendulum.",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="Spent on each figure.")] = 3.0,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; default: all cores that may be used.")] = None,
    compare: Annotated[Path | None, typer.Option(help="FILE with the --json of an earlier bench.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Write a trace of one update to FILE.json instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else.")] = False,
    record: RecordFile = None,
) -> None:
    """Measure this machine's speed: train, imagine, plan, infer, replay, and its share of what is possible."""
    cores = usable_cores()
    if not seconds > 0:
        raise UserError(f"--seconds {seconds:g} must be above 0.")
    if threads is not None and not 1 <= threads <= cores:
        raise UserError(f"--threads {threads} must be at least 1, and at most the {cores} cores that are here.")
    if (as_json and compare is not None) or (profile is not None and (as_json or compare is not None)):
        raise UserError("--json, --compare and --profile exclude one another: give one of them.")
    if profile is not None and record is not None:
        raise UserError("--profile measures nothing that --record could keep: give one of them.")
    recorder = Recorder(record)
    before = None if compare is None else _read(compare)
    if profile is not None:
        _check_writable(profile)
    if threads is not None:
        torch.set_num_threads(threads)
    given = arguments or []
    name, overrides = (given[0], given[1:]) if given and "=" not in given[0] else ("pendulum", given)
    config = configure(find_or_make(name, BENCH_CONFIGS), overrides)
    case = " ".join([name, *overrides])
    if before is not None and before.get("case") != case:
        raise UserError(f"--compare {compare} measured {before.get('case')!r}, not {case!r}: take the same case.")
    with tempfile.TemporaryDirectory(prefix="worldvae-bench-") as folder:
        if profile is not None:
            with closing(Bench(config, Path(folder), seconds)) as bench:
                bench.trace(profile)
            print(f"One update is in {profile}: open it at ui.perfetto.dev or in chrome://tracing.", file=sys.stderr)
            return
        with closing(Bench(config, Path(folder), seconds)) as bench:
            limits = measure_limits(bench.device, seconds / 2)
            found = _measured(bench, limits)
            changed = unrest(limits, measure_limits(bench.device, seconds / 4))
            here = machine(bench.device) | _limits(limits) | {"limits_changed_by": changed}
            head = {"case": case, "machine": here, "model": bench.parameters(), "chosen": bench.chosen()}
    _warn_of_unrest(changed)
    result = _object(head, found)
    if as_json:
        print(json.dumps(result))
    else:
        if before is not None:
            _warn_of_differences(head, before)
        _show(head, found, before)
    recorder.keep(result)


def _measured(bench: Bench, limits: Limits) -> list[Measure]:
    found = []
    for measure in bench.measures(limits):
        found.append(measure)
        if sys.stderr.isatty():
            print(f"{measure.name}: {measure.value:.4g} {measure.unit}", file=sys.stderr, flush=True)
    return found


def _warn_of_unrest(changed: float) -> None:
    """Say on stderr if the machine's own limits were not the same before and after."""
    if changed > MAX_LIMIT_CHANGE:
        print(
            f"This machine was not quiet: its limits changed by a factor of {changed:.2f} while it was measured, and "
            "each figure may be off by as much.",
            file=sys.stderr,
        )


def _limits(limits: Limits) -> dict[str, Any]:
    rates = {f"matmul_{dtype}_gflops": rate / 1e9 for dtype, rate in limits.matmul.items()}
    rates |= {f"conv_{dtype}_gflops": rate / 1e9 for dtype, rate in limits.conv.items()}
    return rates | {"copy_gb_per_second": limits.copy / 1e9}


def _object(head: dict[str, Any], found: list[Measure]) -> dict[str, Any]:
    """Return the contract's object: {machine, train{...}, imagine{...}, plan{...}, infer{...}, replay{...}, ...}.

    A share stands beside its figure as `roofline_share` if the section has one figure with a share, else in a
    section of its own, `SECTION_roofline_share`, by the figure's name.
    """
    out = dict(head)
    alone = {"train.ms_per_update", "imagine.steps_per_second", "replay.sequences_per_second"}
    for measure in found:
        section, key = measure.name.split(".")
        out.setdefault(section, {})[key] = measure.value
        if measure.share is not None and measure.name in alone:
            out[section]["roofline_share"] = measure.share
        elif measure.share is not None:
            out.setdefault(f"{section}_roofline_share", {})[key] = measure.share
    return out


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object of an earlier bench; entries that are no figures are not compared."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--compare {path} cannot be read as JSON ({error}): give a file made with --json.") from None
    if not isinstance(found, dict) or not isinstance(found.get("train"), dict) or "machine" not in found:
        raise UserError(f"--compare {path} is not the JSON of a bench: make one with worldvae bench --json > FILE.")
    return found


def _check_writable(profile: Path) -> None:
    """Raise unless a trace can be written there: the profiler itself reports no error."""
    if profile.suffix != ".json":
        raise UserError(f"--profile {profile} must end in .json: a trace for chrome://tracing or ui.perfetto.dev.")
    try:
        profile.parent.mkdir(parents=True, exist_ok=True)
        profile.open("a").close()
    except OSError as error:
        raise UserError(f"cannot write the profile to {profile}: {error.strerror}; choose another place.") from None


def _figure(before: dict[str, Any], name: str) -> float | None:
    section, key = name.split(".")
    figures = before.get(section)
    value = figures.get(key) if isinstance(figures, dict) else None
    return value if isinstance(value, int | float) and value > 0 else None


def _warn_of_differences(head: dict[str, Any], before: dict[str, Any]) -> None:
    """Say on stderr in which device, threads, torch or choices the two measurements differ."""
    now_of, then_of = (dict(one["machine"]) | dict(one.get("chosen", {})) for one in (head, before))
    for name in ("device", "cpu", "threads", "torch", "precision", "behaviour"):
        now, then = now_of.get(name), then_of.get(name)
        if now != then:
            print(f"Not on equal terms: {name} was {then} then and is {now} now.", file=sys.stderr)


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
    chosen = head["chosen"]
    how = f"In {chosen['precision']}; behaviour learns {chosen['behaviour']}."
    console.print(f"Parameters: {parts}. {how}", markup=False, highlight=False)
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
            old = _figure(before, measure.name)
            row += ["", ""] if not old else [f"{old:.4g}", f"{measure.value / old:.2f}"]
        table.add_row(*row, measure.words)
    console.print(table)
    console.print("Shares are of the matrix-product limit (replay: of the copy limit). Medians after a warm-up.")
