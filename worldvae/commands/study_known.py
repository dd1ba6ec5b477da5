"""`worldvae study digits | linear`: what theory says, measured."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from worldvae.errors import UserError
from worldvae.seeds import check_seed
from worldvae.studies.linear_control import PLANNER_CONFIGS, LinearControlResult, control, control_table
from worldvae.studies.linear_training import learn_to_control
from worldvae.studies.linear_world import LinearWorldResult, learn_linear_world, table, with_true_p
from worldvae.system.json_file import write_json
from worldvae.training.progress import say


def study_digits(out: Path, names: Sequence[str], seeds: Sequence[int], as_json: bool) -> dict[str, object]:
    """Compare the static priors called `names` (none: all) on digits; return the object of `--json`."""
    from worldvae.studies.digit_vaes import PRIORS
    from worldvae.studies.digits import compare_priors
    from worldvae.studies.digits_table import LEGEND, digits_table, failures, standings

    _check(seeds)
    rows = compare_priors(out, list(seeds), list(dict.fromkeys(names)) or tuple(PRIORS), say=say)
    found: dict[str, object] = {
        "seeds": list(seeds),
        "rows": [row.figures() for row in rows],
        "priors": [asdict(standing) for standing in standings(rows)],
        "file": str(out / "digits.json"),
        "grid": str(out / "digits.png"),
    }
    if as_json:
        print(json.dumps(found))
        return found
    console = Console(width=None if sys.stdout.isatty() else 150)
    console.print(digits_table(rows))
    console.print("\n".join([LEGEND, *failures(rows)]))
    print(f"The numbers are in {out / 'digits.json'}, samples of every prior in {out / 'digits.png'}")
    return found


def study_linear(out: Path, seeds: Sequence[int], as_json: bool) -> dict[str, object]:
    """Compare models of linear-Gaussian worlds with the exact log-likelihood, and their planners with the optimum.

    Returns:
        The object of `--json`.
    """
    _check(seeds)
    path = out / "linear.json"
    found: list[LinearWorldResult] = []
    controlled: list[LinearControlResult] = []

    def keep() -> dict[str, object]:
        rows: dict[str, object] = {"rows": [r.as_json() for r in found], "control": [r.as_json() for r in controlled]}
        write_json(path, rows)
        return rows

    keep()  # what cannot be written is known before anything is trained
    for world in ("mild", "stiff"):
        for seed in seeds:
            longest = 3000 if world == "mild" else 9000  # what a smoother needs to come within a nat
            for context, given, updates in (
                ("smooth", None, longest),
                ("filter", None, longest),
                ("smooth", with_true_p(world), 1500),
                ("filter", with_true_p(world), 1500),
            ):
                found.append(learn_linear_world(world, context, updates, seed, given=given, progress=say))
                keep()
    for seed in seeds:
        model = learn_to_control("stiff", seed=seed, progress=say)
        for planner in PLANNER_CONFIGS:
            controlled.append(control(model, "stiff", planner, seed=seed))
            say(f"stiff seed {seed}: {planner} pays {controlled[-1].ratio:.3f} of the optimum")
            keep()
    result = {"seeds": list(seeds)} | keep() | {"file": str(path)}
    if as_json:
        print(json.dumps(result))
    else:
        print(f"{table(found)}\n\n{control_table(controlled)}\nThe numbers are in {path}")
    return result


def _check(seeds: Sequence[int]) -> None:
    if not seeds:
        raise UserError("--seeds must be at least 1: it is how many trainings there are of everything.")
    for seed in seeds:
        check_seed(seed)
