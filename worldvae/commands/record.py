"""`--record FILE.json`: keep a command's result, its commit and machine, for the README beside the file."""

import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

import worldvae
from worldvae.commands.tables import Record, read_records, refresh, render, write_text
from worldvae.errors import UserError
from worldvae.system.json_file import plain
from worldvae.system.machine import describe_machine
from worldvae.training.progress import say

RecordFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="Keep the result there, and rewrite the tables of the README beside it."),
]
"""The option `--record` of every command that measures."""

OUTPUT_OPTIONS = ("--record", "--out")
"""Options that say where a command writes; they do not change its result."""


class Recorder:
    """Keeps the result of a command if `--record` was given; made where the command begins, as it takes its time.

    Args:
        file: that was given, or None: then nothing is kept.

    Raises:
        UserError: If the file holds something else or cannot be written, or the README beside it asks for a table that
            cannot be made: all of that is known before anything is measured.
    """

    def __init__(self, file: Path | None) -> None:
        self.file, self._began = file, time.monotonic()
        if file is None:
            return
        self._commit = _commit(Path(worldvae.__file__).parent)
        read_records(file)
        _check_writable(file.parent)
        if (readme := file.with_name("README.md")).exists():
            render(readme)

    def keep(self, result: Any) -> None:
        """Append the result to the file, and rewrite the tables of the README beside it, if there is one."""
        if self.file is None:
            return
        record: Record = {
            "command": command(sys.argv[1:]),
            "commit": self._commit,
            "date": date.today().isoformat(),
            "machine": describe_machine(),
            "minutes": (time.monotonic() - self._began) / 60,
            "result": plain(result),
        }
        append(self.file, record)
        readme = self.file.with_name("README.md")
        tables = ""
        if readme.exists():
            tables = f"; tables of {readme} written anew" if refresh(readme) else f"; no table of {readme} changed"
        say(f"Recorded in {self.file}{tables}.")


def append(file: Path, record: Record) -> None:
    """Add a record to those in `file`, one a line, in the place of an earlier one of the same command.

    Raises:
        UserError: If the file holds something else, or cannot be written.
    """
    records = read_records(file)
    place = next((i for i, one in enumerate(records) if one["command"] == record["command"]), len(records))
    records[place : place + 1] = [record]
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, allow_nan=False) for one in records)
    write_text(file, f"[\n{lines}\n]\n")


def command(arguments: Sequence[str]) -> str:
    """Return a command line as it is recorded: no --json, --record or --out, no path of this machine."""
    kept: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument in OUTPUT_OPTIONS:
            next(left, None)  # its value
        elif argument != "--json" and argument.partition("=")[0] not in OUTPUT_OPTIONS:
            head, equals, value = argument.rpartition("=")
            kept.append(head + equals + _without_home(value))
    return shlex.join(["worldvae", *kept])


def _without_home(value: str) -> str:
    """Return an absolute path as seen from the working folder; one that lies elsewhere by its last name."""
    path = Path(value)
    if not path.is_absolute():
        return value
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"cannot record in {folder}: {error.strerror}; choose another place.") from None


def _commit(package: Path) -> str | None:
    """Return the commit of the checkout that holds `package`, with "+" if its code was changed since; None without one.

    (A package that was installed into some other repository's folder is not under its control.)
    """

    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", package, *arguments], capture_output=True, text=True)

    try:
        if git("ls-files", "--error-unmatch", "__init__.py").returncode:
            return None
        changed = git("diff", "--quiet", "HEAD", "--", ":(top)*.py", ":(top)*.yaml").returncode
        return git("rev-parse", "--short", "HEAD").stdout.strip() + "+" * bool(changed) or None
    except OSError:  # there is no git
        return None
