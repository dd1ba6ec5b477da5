"""Tables of READMEs: what a template makes of a record, and that nobody changed their numbers by hand."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from tests.studies.test_study_summary import cell
from worldvae.bench.limits import Limits
from worldvae.bench.measures import Measure
from worldvae.commands.bench import _limits, _object
from worldvae.commands.eval import _object as eval_object
from worldvae.commands.record import append
from worldvae.commands.tables import NO_RECORD, TABLE_BLOCK, TABLE_START, Record, read_records, refresh, render
from worldvae.diagnostics.gaps import Gaps, Level
from worldvae.diagnostics.inference import Inference
from worldvae.errors import UserError
from worldvae.evaluation.play import Evaluation
from worldvae.evaluation.reaching import Reached
from worldvae.studies.digits_table import AVERAGED_FIELDS, Standing
from worldvae.studies.families import FamilyRow
from worldvae.studies.linear_control import LinearControlResult
from worldvae.studies.linear_world import LinearWorldResult, Nats
from worldvae.studies.study_summary import summarise
from worldvae.system.json_file import plain

ROOT = Path(__file__).parents[2]
FOUND = [*ROOT.glob("*/README.md"), *ROOT.glob("worldvae/*/README.md"), ROOT / "README.md"]
OURS = [path for path in sorted(FOUND) if not path.parent.is_symlink()]
READMES = [path for path in OURS if TABLE_START.search(path.read_text("utf-8"))]

pytestmark = pytest.mark.usefixtures("unchecked")


def record(command: str = "worldvae eval runs/x", **others: Any) -> Record:
    found = {
        "commit": "abc1234",
        "date": "2026-01-02",
        "machine": "A processor, 2 cores",
        "minutes": 1.25,
        "result": {},
    }
    return {"command": command} | found | others


def write(folder: Path, columns: str, *records: Record, options: str = "") -> Path:
    for one in records:
        append(folder / "results.json", one)
    readme = folder / "README.md"
    readme.write_text(f"# Before\n\n<!-- table: results.json{options}\n{columns}\n-->\n<!-- end -->\n\nAfter.\n")
    return readme


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of all tables, head and rows, without the lines between them."""
    lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_a_record_is_a_row(tmp_path: Path) -> None:
    results = {"mean": -3.14159, "ci95": [-4.0, None], "steps": 12345, "share": 0.256, "words": "a|b", "none": None}
    columns = (
        "mean = {result[mean]:.2f}\nsteps = {result[steps]:,}\nshort = {result[steps]:.1fk} of {result[steps]:.2fM}\n"
    )
    columns += "share = {result[share]:.0%}\nwords = `{result[words]}`\nminutes = {minutes:.1f}"
    readme = write(tmp_path, columns, record(result=results))
    assert refresh(readme) and not refresh(readme)
    head, row = rows_of(readme.read_text())
    assert head == ["mean", "steps", "short", "share", "words", "minutes"]
    assert row == ["−3.14", "12 345", "12.3 k of 0.01 M", "26 %", r"`a\|b`", "1.2"]
    assert readme.read_text().startswith("# Before\n\n<!-- table:") and readme.read_text().endswith("\n\nAfter.\n")


def test_what_a_record_lacks_is_an_empty_cell(tmp_path: Path) -> None:
    columns = (
        "a = {result[a]:.1f} [{result[b]:.1f}]\nb = {result[b]}\nc = {result[c][5]:.1f}\nd = {result[a][x]}\ne = {no}"
    )
    readme = write(tmp_path, columns, record(result={"a": 1.0, "b": None, "c": [1.0]}))
    refresh(readme)
    assert rows_of(readme.read_text()) == []  # a row of nothing is none
    append(tmp_path / "results.json", record("worldvae b", result={"a": 1.0, "b": 2.0}))
    refresh(readme)
    assert readme.read_text().splitlines()[-5] == "| 1.0 [2.0] | 2.0 |  |  |  |"


def test_elements_of_a_list_are_rows_and_commands_are_picked(tmp_path: Path) -> None:
    both = record(
        "worldvae eval runs/x --agent cem,actor", result={"seed": 5, "agents": [{"n": "cem"}, {"n": "actor"}]}
    )
    others = [
        record("worldvae eval runs/xy", result={"agents": [{"n": "no"}]}),
        record("worldvae eval runs/x", result={}),
    ]
    options = "; of: worldvae goals, worldvae eval runs/x; each: result[agents]"
    readme = write(tmp_path, "agent = {row[n]}\nseed = {result[seed]}", both, *others, options=options)
    refresh(readme)
    assert rows_of(readme.read_text()) == [["agent", "seed"], ["cem", "5"], ["actor", "5"]]
    assert readme.read_text().count("`worldvae eval runs/x --agent cem,actor`") == 1


def test_no_record_is_a_sentence_and_no_table(tmp_path: Path) -> None:
    readme = write(tmp_path, "a = {result[a]}")
    assert refresh(readme) and read_records(tmp_path / "results.json") == []
    assert NO_RECORD in readme.read_text() and rows_of(readme.read_text()) == []
    append(tmp_path / "results.json", record(result={"a": 1}))
    assert refresh(readme)
    (tmp_path / "results.json").unlink()
    assert refresh(readme)
    assert rows_of(readme.read_text()) == [] and "Measured" not in readme.read_text()
    assert readme.read_text().count(NO_RECORD) == 1


def test_it_is_said_where_figures_come_from(tmp_path: Path) -> None:
    later = {"commit": "def5678+", "date": "2026-01-03"}
    records = [
        record("worldvae a"),
        record("worldvae b"),
        record("worldvae c", **later),
        record("worldvae d", commit=None),
    ]
    readme = write(tmp_path, "a = {command}", *records)
    refresh(readme)
    said = " ".join(readme.read_text().split())
    machine = "A processor, 2 cores"
    assert f"Measured at commit abc1234 on 2026-01-02, {machine}, by `worldvae a`, `worldvae b`." in said
    assert f"at commit def5678 with uncommitted changes on 2026-01-03, {machine}, by `worldvae c`." in said
    assert f"Measured outside a checkout on 2026-01-02, {machine}, by `worldvae d`." in said
    assert all(len(line) <= 120 for line in readme.read_text().splitlines())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- table: results.json\na = {b}\n-->\n", "<!-- end -->"),
        (
            "<!-- table: results.json\na = {b}\n-->\n\n<!-- table: results.json\na = {b}\n-->\n<!-- end -->\n",
            "<!-- end -->",
        ),
        ("<!-- table: results.json; off: x\na = {b}\n-->\n<!-- end -->\n", "of: COMMAND"),
        ("<!-- table: results.json\na: {b}\n-->\n<!-- end -->\n", "'a: {b}' is no column"),
        ("<!-- table: results.json\na = {date:.1f}\n-->\n<!-- end -->\n", "'{date:.1f}' is no template"),
        ("<!-- table: results.json\na = {date\n-->\n<!-- end -->\n", "'{date' is no template"),
    ],
)
def test_a_comment_that_cannot_be_understood_is_a_sentence(text: str, words: str, tmp_path: Path) -> None:
    append(tmp_path / "results.json", record())
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(UserError, match=r"README\.md: ") as error:
        render(tmp_path / "README.md")
    assert words in str(error.value)


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_figure_was_changed_by_hand(path: Path) -> None:
    """If this fails: undo the edit, or after a change of columns run `python -m worldvae.commands.tables README.md`."""
    assert path.read_text(encoding="utf-8") == render(path)


def test_a_changed_figure_is_noticed(tmp_path: Path) -> None:
    readme = write(tmp_path, "a = {result[a]:.1f}", record(result={"a": -1.5}))
    refresh(readme)
    readme.write_text(readme.read_text().replace("−1.5", "−1.4"))
    assert readme.read_text() != render(readme)


def examples() -> dict[str, Any]:
    """Return one result of every command whose results a README of this repository shows."""
    dream = {"psnr": [20.0] * 40, "psnr_copy_last": [10.0] * 40}
    played = [Evaluation("Env-v0", name, 0, [1.0, 2.0], 0.5, 9.0, 3.0, (1.0, 2.0, 3.0)) for name in ("cem", "actor")]
    reached = Reached("icem", "distance", np.array([[1.0, 0.0]]), 0.1, ("other room",), 1.0)
    way = Inference("amortised", -1.0, "lower_bound", 0.1, 2.0, 1, 0)
    level = Level(-1.0, 0.1)
    gaps = Gaps({"encoder": level}, level, level, 0.1, 0.2, 0.3, "estimate", 8, 16, 64, 9)
    family = FamilyRow(
        "rssm", None, 1.0, 9, 18, 0.5, 1000, 1.0, (0.0, 2.0), (4.0, 3.0, 2.0, 1.0), -5.0, "lower_bound", "x", 9e3
    )
    digits = Standing("flow", 1, [], -1.0, -2.0, 0.0, 0.5, 0.1, dict.fromkeys(AVERAGED_FIELDS, 2.0), "estimate", 8)
    nats = Nats(-1.0, 0.1, "exact")
    linear = LinearWorldResult(
        "mild", "smooth", "p and q", 0, 9, 60.0, 4, nats, nats, nats, nats, nats, cast(Any, None)
    )
    head = {
        "case": "tiny",
        "machine": _limits(Limits({"float32": 1e9, "bfloat16": 1e9}, {}, 1e9)) | {"limits_changed_by": 1.1},
    }
    head |= {"model": {"world model": 9}, "chosen": {"precision": "float32"}}
    names = ("train.ms_per_update", "train.gflop", "train.full_ms_per_update", "imagine.steps_per_second", "plan.mppi")
    measures = [Measure(name, "", 1.0, "", 0.5) for name in (*names, "plan.cem_1000x10x12")]
    return {
        "train": trained(dream, played[1]),
        "eval": eval_object(played, {}),
        "goals": {"seed": 0, "goals": [reached.as_json()]},
        "diagnose": {"inference": [asdict(way)], "gaps": asdict(gaps)},
        "study online": {"rows": [asdict(family)]},
        "study families": summarise(cells := [cell("vae", 0, [1.0, 2.0])], cells),
        "study digits": {"priors": [asdict(digits)]},
        "study linear": {
            "rows": [linear.as_json()],
            "control": [LinearControlResult("stiff", "cem", 0, 1, 1, 1.0, 2.0, 0.1, 1.0).as_json()],
        },
        "bench": _object(head, measures),
    }


def trained(dream: dict[str, Any], actor: Evaluation) -> dict[str, Any]:
    """Return the parts of `worldvae train --json` that tables show; test_record.py fills a table from a training."""
    numbers = {"seed": 0, "environment_steps": 1, "updates": 1, "minutes": 1.0}
    return {"config": "tiny"} | numbers | {"actor": actor.as_json(), "dream": dream}


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_column_is_filled_by_its_command(path: Path, tmp_path: Path) -> None:
    results = examples()
    for asked in TABLE_BLOCK.finditer(path.read_text(encoding="utf-8")):
        for command in asked["of"].split(","):
            [result] = [value for name, value in results.items() if command.strip().startswith(f"worldvae {name}")]
            append(tmp_path / asked["file"], record(command.strip(), result=plain(result)))
    (tmp_path / "README.md").write_text(path.read_text(encoding="utf-8"))
    made = list(TABLE_BLOCK.finditer(render(tmp_path / "README.md")))
    assert made
    for asked in made:
        head, *rows = rows_of(asked[0])
        assert rows and len(head) == len(asked["columns"].splitlines())
        assert all(any(row[i] for row in rows) for i in range(len(head))), asked[0]
