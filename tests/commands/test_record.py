"""`--record`: what is stored about a command, and what the README beside the file then shows."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from worldvae.commands.cli import main
from worldvae.commands.record import _commit, append, command
from worldvae.commands.tables import RECORD_KEYS, read_records
from worldvae.studies.digits import DigitsRow
from worldvae.studies.linear_control import LinearControlResult
from worldvae.studies.linear_world import LinearWorldResult, Nats

SMALL = (Path(__file__).parents[1] / "small_run.txt").read_text().split()

pytestmark = pytest.mark.usefixtures("unchecked")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["worldvae", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("train pendulum --seed 0 --record configs/results.json", "worldvae train pendulum --seed 0"),
        ("train pendulum --record=a.json --out=b --json --seed 0", "worldvae train pendulum --seed 0"),
        ("eval /home/somebody/runs/x --agent cem,actor --json", "worldvae eval x --agent cem,actor"),
        ("train --resume=/home/somebody/x env.id=a/b-v0", "worldvae train --resume=x env.id=a/b-v0"),
        ("dream runs/x --out film.gif --horizon 9", "worldvae dream runs/x --horizon 9"),
    ],
)
def test_a_recorded_command_omits_options_that_change_no_number(given: str, kept: str) -> None:
    assert command(given.split()) == kept


def test_a_path_is_recorded_as_seen_from_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["dream", str(tmp_path / "runs" / "a"), "--seed=3", f"--film={tmp_path / 'b.gif'}", "/elsewhere/c"]
    assert command(given) == "worldvae dream runs/a --seed=3 --film=b.gif c"


def test_the_same_command_again_takes_the_place_of_its_record(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    for name, number in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        append(file, dict.fromkeys(RECORD_KEYS) | {"command": name, "result": number})
    assert [(one["command"], one["result"]) for one in read_records(file)] == [("a", 3), ("b", 2), ("c", 4)]
    assert len(file.read_text().splitlines()) == 2 + 3  # one record per line
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"command": "worldvae eval"}]', "\x00"])
def test_a_damaged_file_is_a_sentence_before_anything_is_measured(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "results.json"
    file.write_text(text)
    for arguments in (["train", "tiny", "--out", str(tmp_path / "run")], ["bench", "tiny"], ["study", "linear"]):
        assert call(monkeypatch, *arguments, "--record", str(file)) == 2
        said = capsys.readouterr()
        assert said.out == "" and len(said.err.splitlines()) == 1 and "results.json" in said.err
    assert file.read_text() == text and not (tmp_path / "run").exists()


def test_what_cannot_be_recorded_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert call(monkeypatch, "train", "tiny", "--record", str(tmp_path / "file" / "results.json")) == 2
    assert "cannot record in" in capsys.readouterr().err
    assert call(monkeypatch, "bench", "tiny", "--profile", "x.json", "--record", "results.json") == 2
    assert "--profile measures nothing" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("<!-- table: results.json\nwrong\n-->\n<!-- end -->\n")
    assert call(monkeypatch, "train", "tiny", "--record", str(tmp_path / "results.json")) == 2
    assert "'wrong' is no column" in capsys.readouterr().err


def test_a_training_and_an_evaluation_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, run, readme = tmp_path / "results.json", str(tmp_path / "run"), tmp_path / "README.md"
    configs = (Path(__file__).parents[2] / "configs" / "README.md").read_text(encoding="utf-8")
    readme.write_text(configs.replace("worldvae train pendulum,", "worldvae train tiny,"))
    arguments = ["tiny", *SMALL, "train.steps=200", "train.eval_episodes=2", "--seed", "3"]
    assert call(monkeypatch, "train", *arguments, "--out", run, "--json", "--record", str(file)) == 0
    said = capsys.readouterr()
    [kept] = read_records(file)
    result = json.loads(said.out)
    assert kept["result"] == result and kept["command"] == shlex.join(["worldvae", "train", *arguments])
    assert result["seed"] == 3 and result["environment_steps"] >= 200 and result["finished"] is True
    assert 0 < result["minutes"] <= kept["minutes"] and re.fullmatch(r"\d{4}-\d\d-\d\d", kept["date"])
    assert f"Recorded in {file}; tables of {readme} written anew." in said.err
    low, high = result["actor"]["ci95"]
    assert f"| {result['actor']['mean']:.1f} [{low:.1f}, {high:.1f}] |" in readme.read_text(encoding="utf-8")
    assert f"| {result['dream']['psnr'][39]:.1f} |" in readme.read_text(encoding="utf-8")

    before = readme.read_text(encoding="utf-8")
    assert call(monkeypatch, "eval", run, "--agent", "random,actor", "--episodes", "2", "--record", str(file)) == 0
    assert capsys.readouterr().err.endswith(f"Recorded in {file}; no table of {readme} changed.\n")
    assert [one["command"] for one in read_records(file)][1] == "worldvae eval run --agent random,actor --episodes 2"
    assert readme.read_text(encoding="utf-8") == before


def test_studies_are_recorded_as_they_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The trainings aside, which take minutes."""
    file, nats = tmp_path / "results.json", Nats(-1.0, 0.1, "exact")
    learned = LinearWorldResult("mild", "smooth", "p", 0, 9, 60.0, 4, nats, nats, nats, nats, nats, cast(Any, None))
    costs = LinearControlResult("stiff", "cem", 0, 1, 1, 1.0, 2.0, 0.1, 1.0)
    rows = [DigitsRow("flow", 0, None, "no time")]
    monkeypatch.setattr("worldvae.studies.digits.compare_priors", lambda *_, **__: rows)
    monkeypatch.setattr("worldvae.commands.study_known.learn_linear_world", lambda *_, **__: learned)
    monkeypatch.setattr("worldvae.commands.study_known.learn_to_control", lambda *_, **__: None)
    monkeypatch.setattr("worldvae.commands.study_known.control", lambda *_, **__: costs)
    for number, name in enumerate(("digits", "linear")):
        arguments = ["study", name, "--seeds", "1", "--out", str(tmp_path / name), "--record", str(file)]
        assert call(monkeypatch, *arguments, "--json") == 0
        assert json.loads(capsys.readouterr().out) == read_records(file)[number]["result"]
        assert call(monkeypatch, *arguments) == 0
        assert capsys.readouterr().err.endswith(f"Recorded in {file}.\n")
    digits, linear = (one["result"] for one in read_records(file))
    assert digits["priors"][0]["failures"] == ["seed 0: no time"] and digits["rows"][0]["failure"] == "no time"
    assert len(linear["rows"]) == 8 and {one["ratio"] for one in linear["control"]} == {2.0}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_code(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert _commit(package) is None  # not a repository
    git("init")
    assert _commit(package) is None  # a repository of other code
    git("add", ".")
    git("commit", "-m", "first")
    (tmp_path / "results.json").write_text("[]")  # results of measurements do not count as changes of the code
    assert _commit(package) == git("rev-parse", "--short", "HEAD")
    (package / "__init__.py").write_text("changed = 1")
    assert _commit(package) == git("rev-parse", "--short", "HEAD") + "+"
