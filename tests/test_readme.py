"""All READMEs are correct: their Python runs, their links exist, and `worldvae` accepts their command lines.

The Python blocks of a file run in order, in one namespace and one empty folder. A shell block that they need (such as a
short training) runs, too, if its first line is "```sh run"; the lines of all others are only parsed.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
FRONT = ROOT / "README.md"
FOUND = [FRONT, *sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("worldvae/*/README.md"))]
READMES = [path for path in FOUND if not path.parent.is_symlink()]  # worldvae/configs is the folder configs
MAX_LINES = 200
SHELLS = {"sh", "bash", "console", "shell"}

pytestmark = pytest.mark.usefixtures("unchecked")  # as readers run it


class Block(NamedTuple):
    language: str
    flags: str
    code: str
    line: int


def read_blocks(text: str) -> list[Block]:
    fences = re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2].strip(), m[3], text.count("\n", 0, m.start(3))) for m in fences]


def read_commands(block: Block) -> list[list[str]]:
    """Return the arguments of each `worldvae ...` line, without comments, prompts and line breaks."""
    lines = (line.removeprefix("$ ") for line in block.code.replace("\\\n", " ").splitlines())
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("worldvae ")]


BLOCKS = {path: read_blocks(path.read_text(encoding="utf-8")) for path in READMES}
SHELL_BLOCKS = [block for blocks in BLOCKS.values() for block in blocks if block.language in SHELLS]
COMMANDS = [arguments for block in SHELL_BLOCKS for arguments in read_commands(block)]
WITH_PYTHON = [path for path, blocks in BLOCKS.items() if any(block.language == "python" for block in blocks)]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_front_page_shows_python_and_commands_and_can_be_read_in_five_minutes() -> None:
    assert FRONT in WITH_PYTHON and COMMANDS
    assert len(FRONT.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", WITH_PYTHON, ids=name)
def test_the_python_of_a_readme_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "readme"}
    for block in BLOCKS[path]:
        if block.language == "python":
            # Empty lines in front make a traceback show the line of the README.
            exec(compile("\n" * block.line + block.code, str(path), "exec"), namespace)
        elif block.language in SHELLS and block.flags == "run":
            for arguments in read_commands(block):
                script = "from worldvae.commands.cli import main; main()"
                subprocess.run([sys.executable, "-c", script, *arguments], check=True, timeout=600)


@pytest.mark.parametrize("path", READMES, ids=name)
def test_links_lead_to_files(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_command_lines_are_accepted(arguments: list[str]) -> None:
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
