"""The README is true: its Python runs, and every command line in it is one that `worldvae` accepts.

The Python blocks run in the order of the file, in one namespace and one empty folder. A shell block that they need
(a short training, say) is executed too if its first line is "```sh run"; the lines of all others are only parsed.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")
SHELLS = {"sh", "bash", "console", "shell"}

pytestmark = pytest.mark.usefixtures("unchecked")  # as its readers run it


class Block(NamedTuple):
    language: str
    flags: str
    code: str
    line: int


def read_blocks(text: str) -> list[Block]:
    fences = re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2].strip(), m[3], text.count("\n", 0, m.start(3))) for m in fences]


def read_commands(block: Block) -> list[list[str]]:
    """Return the arguments of each `worldvae ...` line; comments, prompts and line breaks are taken off."""
    lines = (line.removeprefix("$ ") for line in block.code.replace("\\\n", " ").splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("worldvae ")]


BLOCKS = read_blocks(TEXT)
COMMANDS = [arguments for block in BLOCKS if block.language in SHELLS for arguments in read_commands(block)]


def test_the_readme_shows_python_and_commands() -> None:
    assert [block for block in BLOCKS if block.language == "python"]
    assert COMMANDS


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in BLOCKS:
        if block.language == "python":
            # The empty lines in front make a traceback point at the line of the README.
            exec(compile("\n" * block.line + block.code, str(README), "exec"), namespace)
        elif block.language in SHELLS and block.flags == "run":
            for arguments in read_commands(block):
                script = "from worldvae.commands.cli import main; main()"
                subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=600)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_the_command_lines_of_the_readme_are_accepted(arguments: list[str]) -> None:
    parse(arguments)


def parse(arguments: list[str]) -> None:
    """Parse a command line with the real commands without running it; an unknown option or command raises."""
    import typer

    from worldvae.commands.cli import app

    command: Any = typer.main.get_command(app)
    try:
        with command.make_context("worldvae", list(arguments)) as context:
            name, subcommand, rest = command.resolve_command(context, arguments)
            subcommand.make_context(name, rest, parent=context)
    except typer.Exit:
        pass  # --help and --version end the parsing
