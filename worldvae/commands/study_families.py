"""`worldvae study families --budget small | medium`: every kind of world model on the same recorded episodes."""

import json
from pathlib import Path
from typing import Any

import typer

from worldvae.commands.train import EXIT_INTERRUPTED
from worldvae.errors import UserError, near_miss
from worldvae.seeds import check_seed
from worldvae.studies.study_page import write_page
from worldvae.studies.study_rows import rows_of
from worldvae.studies.study_run import Study
from worldvae.studies.study_summary import summarise, text_tables, within
from worldvae.studies.study_tasks import tasks_of
from worldvae.system.cores import usable_cores
from worldvae.system.json_file import write_json
from worldvae.system.machine import describe_machine
from worldvae.training.progress import say

BUDGETS = ("small", "medium")


def refuse_old_form(arguments: list[str]) -> None:
    """Name the command that took the place of `worldvae study families CONFIG`.

    Raises:
        UserError: If there are arguments.
    """
    words = [
        word
        for word, before in zip(arguments, ["", *arguments], strict=False)
        if not word.startswith("-") and (before[:2] != "--" or "=" in before)
    ]
    if words:
        raise UserError(
            "`worldvae study families CONFIG`, which trains online, is now `worldvae study online`: "
            f"worldvae study online {words[0]}"
        )
    if arguments:
        raise UserError(f"no such option: {arguments[0]}. See: worldvae study families --help")


def open_study(
    budget: str, tasks: tuple[str, ...], rows: tuple[str, ...], seeds: int, seed: int, jobs: int, out: Path
) -> Study:
    """Return the study that was asked for.

    Raises:
        UserError: If a word or a number is not accepted.
    """
    if budget not in BUDGETS:
        raise UserError(f"--budget {budget!r} is not accepted: {', '.join(BUDGETS)}.{near_miss(budget, BUDGETS)}")
    if seeds < 1:
        raise UserError(f"--seeds {seeds} is not a positive number of seeds.")
    check_seed(seed)
    cores = usable_cores()
    if not 0 <= jobs <= cores:
        raise UserError(f"--jobs {jobs} must be at least 1, and at most the {cores} cores that are here; 0 takes all.")
    return Study(out, budget, tasks_of(budget, tasks), rows_of(rows), seeds, jobs or cores, seed)


def study_families(study: Study, as_json: bool) -> dict[str, Any]:
    """Run the study, and write its summary and its page; return the object of `--json`.

    Raises:
        UserError: If every cell failed, or the folder cannot be used.
        Exit: With code 130 if it was interrupted.
    """
    try:
        ledger = study.run(say)
    except KeyboardInterrupt:
        say(f"Interrupted, and saved in {study.out}: the same command goes on.")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    cells = ledger.cells()
    summary = summarise(list(ledger.lines.values()), cells, study.skipped)
    head = {"budget": study.budget, "seeds": study.seeds, "jobs": study.jobs}
    file, page = study.out / "summary.json", study.out / "page.html"
    whole = head | summary | {"file": str(file), "page": str(page)}
    whole = within(whole)
    write_json(file, whole)
    sentence = (
        f"Budget {study.budget}, {study.seeds} seed(s), {study.jobs} job(s) side by side on {describe_machine()}."
    )
    write_page(page, summary, cells, study.out / "work", sentence)
    print(json.dumps(whole) if as_json else f"{text_tables(summary)}\nThe page is {page}, the numbers are in {file}")
    if cells and all(cell["failed"] is not None for cell in cells):
        raise UserError(f"every cell failed; {cells[0]['key']}: {cells[0]['failed']}")
    return whole
