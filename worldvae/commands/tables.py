"""Tables of a README, written from records that commands keep in a JSON file beside it (`--record FILE.json`).

A README asks for a table by a comment that holds its columns, as `header = template`:

    <!-- table: results.json; of: worldvae goals runs/two_rooms; each: result[goals]
    plans judged by = {row[objective]}
    reached = {row[success]:.0%} [{row[ci95][0]:.0%}, {row[ci95][1]:.0%}]
    -->
    <!-- end -->

What stands between the comment and `<!-- end -->` is written by commands, never by hand. Templates are format strings
over a record: `command`, `commit`, `date`, `machine`, `minutes` (of the command) and `result` (its `--json`). `of`
picks records by the first words of their commands (several with commas; default: all). A record is a row; with `each`,
every element of a list in it is one, called `row`. A format may end in k or M, for thousands and millions.

`python -m worldvae.commands.tables README.md` writes the tables anew after a change of their columns.
"""

import json
import re
import string
import sys
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from worldvae.errors import UserError
from worldvae.system.text_file import replace_text

Record = dict[str, Any]
NO_RECORD = "No result is recorded yet."
RECORD_KEYS = {"command", "commit", "date", "machine", "minutes", "result"}

TABLE_START = re.compile("^<!-- table:", re.MULTILINE)
TABLE_BLOCK = re.compile(
    r"^<!-- table: (?P<file>[^;\n]+)(; of: (?P<of>[^;\n]+))?(; each: (?P<each>[^;\n]+))?\n"
    r"(?P<columns>(?:(?!-->).)*)-->\n(?:(?!^<!-- table:).)*?^<!-- end -->",
    re.DOTALL | re.MULTILINE,
)


def read_records(file: Path) -> list[Record]:
    """Return the records in `file`, none if it is not there.

    Raises:
        UserError: If it holds something else, or cannot be read.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}): repair it, or record in another file.") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) and one.keys() >= RECORD_KEYS for one in found):
        raise UserError(f"{file} does not hold what --record writes: repair it, or record in another file.")
    return found


def render(readme: Path) -> str:
    """Return the text of a README with its tables as the records beside it have them.

    Raises:
        UserError: If a comment that asks for a table cannot be understood, or its records cannot be read.
    """
    text = readme.read_text(encoding="utf-8")
    new, number = TABLE_BLOCK.subn(lambda asked: _filled(asked, readme), text)
    if number != len(TABLE_START.findall(text)):
        raise UserError(
            f"{readme}: a table is asked for as <!-- table: FILE.json; of: COMMAND, COMMAND; each: LIST, then lines of "
            "HEADER = TEMPLATE, -->, and <!-- end --> where the table ends."
        )
    return new


def refresh(readme: Path) -> bool:
    """Write the tables of a README anew; return whether that changed it.

    Raises:
        UserError: As `render`, or if the README cannot be written.
    """
    before, text = readme.read_text(encoding="utf-8"), render(readme)
    if text != before:
        write_text(readme, text)
    return text != before


def write_text(path: Path, text: str) -> None:
    """Write a file such that a reader finds either the old text or the new one.

    Raises:
        UserError: If there is no way to write there.
    """
    try:
        replace_text(path, text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}.") from error


def _filled(asked: re.Match[str], readme: Path) -> str:
    """Return a comment and the table that it asks for; a sentence where there is no record yet."""
    comment = asked[0][: asked[0].index("-->")] + "-->\n"
    columns: dict[str, str] = {}
    for line in asked["columns"].splitlines():
        header, equals, template = (part.strip() for part in line.partition(" = "))
        if not equals:
            raise UserError(f"{readme}: {line!r} is no column of a table: write HEADER = TEMPLATE.")
        columns[header] = template
    records = [one for one in read_records(readme.parent / asked["file"]) if _is_of(one, asked["of"])]
    rows = [row for record in records for row in _rows(record, asked["each"])]
    filled = [(row, [_cell(template, row, readme) for template in columns.values()]) for row in rows]
    filled = [(row, cells) for row, cells in filled if any(cells)]
    if not filled:
        return f"{comment}\n{NO_RECORD}\n\n<!-- end -->"
    head, *body = ["| " + " | ".join(cells) + " |" for cells in (columns, *(cells for _, cells in filled))]
    table = "\n".join([head, "|" + "---|" * len(columns), *body])
    return f"{comment}\n{_origin([row for row, _ in filled])}\n\n{table}\n\n<!-- end -->"


def _is_of(record: Record, commands: str | None) -> bool:
    words = record["command"].split()
    return commands is None or any(words[: len(one.split())] == one.split() for one in commands.split(","))


def _rows(record: Record, each: str | None) -> list[Record]:
    """Return what the templates of each row are filled with; nothing where the record has no such list."""
    if each is None:
        return [record]
    try:
        elements = _CELLS.get_field(each, (), record)[0] or []
    except (LookupError, AttributeError, TypeError):
        return []
    return [record | {"row": element} for element in elements]


def _origin(rows: Sequence[Record]) -> str:
    """Return the source of the figures: a sentence for all commands of one commit, day and machine."""
    commands: dict[tuple[str | None, str, str], dict[str, None]] = {}
    for one in rows:
        commands.setdefault((one["commit"], one["date"], one["machine"]), {})[f"`{one['command']}`"] = None
    sentences = [
        f"Measured {_at(commit)} on {date}, {machine}, by {', '.join(names)}."
        for (commit, date, machine), names in commands.items()
    ]
    return fill(" ".join(sentences), 120, break_long_words=False, break_on_hyphens=False)


def _at(commit: str | None) -> str:
    if commit is None:
        return "outside a checkout"
    return f"at commit {commit.removesuffix('+')}" + " with uncommitted changes" * commit.endswith("+")


def _cell(template: str, values: Record, readme: Path) -> str:
    """Return a cell; an empty one if the record lacks a value."""
    try:
        return _CELLS.vformat(template, (), values)
    except (LookupError, AttributeError, TypeError):
        return ""
    except ValueError as error:
        raise UserError(f"{readme}: {template!r} is no template of a column ({error}).") from None


class _Cells(string.Formatter):
    """Formats as `str.format` does, but numbers with "−" for minus, and with spaces between thousands and before %."""

    def format_field(self, value: Any, format_spec: str) -> str:
        """Format one field; None counts as missing."""
        if value is None:
            raise LookupError
        if isinstance(value, bool) or not isinstance(value, int | float):
            return format(value, format_spec).replace("|", r"\|")
        unit = {"k": 1e3, "M": 1e6}.get(format_spec[-1:])
        number = f"{value:{format_spec}}" if unit is None else f"{value / unit:{format_spec[:-1]}} {format_spec[-1]}"
        return number.replace("-", "−").replace(",", " ").replace("%", " %")


_CELLS = _Cells()

if __name__ == "__main__":
    for given in sys.argv[1:]:
        refresh(Path(given))
