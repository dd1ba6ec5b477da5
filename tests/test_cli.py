"""All commands: a character that the terminal cannot show is replaced, and stops nothing."""

import io
import sys

import pytest

from worldvae.commands.cli import main
from worldvae.training.progress import Progress, say


class Terminal(io.TextIOWrapper):
    """A stream that raises for anything except ASCII, like that of a bare container."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="ascii", errors="strict")

    def shown(self) -> str:
        self.flush()
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode("ascii")


def sit_at_it(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    found = Terminal()
    monkeypatch.setattr(sys, "stdout", found)
    monkeypatch.setattr(sys, "stderr", found)
    return found


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["worldvae", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_a_character_that_the_terminal_lacks_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_at_it(monkeypatch)
    assert call(monkeypatch, "check-env", "worldvae/TinyDiscrete-v0", "--seconds", "0.05") == 0
    assert "frames of 3?64?64" in terminal.shown() and "Can be learned" in terminal.shown()
    progress = Progress(steps=10)
    progress.show(0, 0, [])
    say(progress.line(5, 0, [], now=1.0))
    assert "return        ? (last 0 episodes)" in terminal.shown()


def test_a_character_that_the_terminal_lacks_hides_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = sit_at_it(monkeypatch)
    assert call(monkeypatch, "check-env", "Zürich-v0") == 2
    assert "Z?rich" in terminal.shown() and "Traceback" not in terminal.shown()


def test_a_command_runs_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `pythonw`, or after `>&-`."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert call(monkeypatch, "check-env", "worldvae/TinyDiscrete-v0", "--seconds", "0.05", "--json") == 0
