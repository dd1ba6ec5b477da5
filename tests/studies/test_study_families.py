"""`worldvae study families --budget`: kinds of models on the same recorded episodes, from the command to the page."""

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.test_commands import call, complain
from worldvae.commands.train import EXIT_INTERRUPTED
from worldvae.runs import checkpoint
from worldvae.studies import study_blocks, study_data, study_jobs, study_measures, study_training
from worldvae.studies.frame_probe import train_frame_probe
from worldvae.studies.recorded import record_episodes
from worldvae.studies.study_cells import Ledger
from worldvae.studies.study_context import MeasureContext, NotApplicableError
from worldvae.studies.study_planning import measure_planning, planner_config
from worldvae.studies.study_rows import ROWS, Row
from worldvae.studies.study_size import Dialled
from worldvae.studies.study_tasks import ONE, SAME_WORK, TASKS, Budget, Task
from worldvae.studies.study_training import build, layouts_of

WORLD = {"id": "worldvae/LinearGaussian-v0", "obs": "state", "time_limit": 20}
CONFIG = {"env": WORLD, "model": {"size": "tiny", "hidden": 16}, "train": {"batch": 4, "length": 8}}
BUDGET = Budget(0.2, 5e7, (ONE, SAME_WORK), 1, 9, 2, 2, (5.0,), 1)
LINEAR = Task("linear", CONFIG, {"small": BUDGET}, horizons=(1, 5, 10), plan_horizon=4)
GIVEN = ("study", "families", "--budget", "small", "--tasks", "linear")

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module", autouse=True)
def _tiny() -> Iterator[None]:
    """Make the task a few seconds long; processes of the study are forked, and so have it, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "linear", LINEAR)
        patch.setattr(study_measures, "SPEED_SECONDS", 0.02)
        patch.setattr(study_data, "train_frame_probe", partial(train_frame_probe, updates=20))
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a study of two trained rows, one of which fails, and of two rows without a model."""
    folder = tmp_path_factory.mktemp("families") / "study"
    size = study_jobs.equal_size

    def broken(task: Task, row: Row) -> Dialled:
        if row.name == "latent_flow":
            raise ValueError("the flow does not fit")
        return size(task, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_jobs, "equal_size", broken)
        assert call(*GIVEN, "--rows", "vae,latent_flow,copy_last,random", "--out", str(folder)) == 0
    return folder


def lines_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {one["key"]: one for one in map(json.loads, (folder / "cells.jsonl").read_text().splitlines())}


def test_every_cell_is_a_line(out: Path) -> None:
    found = lines_of(out)
    rows = {"vae": ("B-time", "B-flops"), "latent_flow": ("B-time", "B-flops")}
    keys = {"linear/data", *(f"linear/{row}/tuning" for row in rows)}
    keys |= {f"linear/{row}/seed0/{point}" for row, points in rows.items() for point in points}
    assert set(found) == keys | {"linear/copy_last/seed0/untrained", "linear/random/seed0/untrained"}
    trained = found["linear/vae/seed0/B-time"]
    assert trained["failed"] is None and trained["training"]["updates"] > 0
    assert trained["training"]["seconds"] == pytest.approx(BUDGET.seconds, abs=0.15)
    assert set(trained["measures"]) == set(study_blocks.MEASURES)
    assert len(trained["measures"]["planning"]["equal_candidates"]["returns"]) == 2
    assert trained["digest"] == found["linear/data"]["digest"]
    counted = found["linear/vae/seed0/B-flops"]["training"]
    assert (counted["updates"] - 1) * counted["flops_per_update"] < BUDGET.flops or counted["seconds"] >= 0.4
    assert "NaN" not in (out / "cells.jsonl").read_text()


def test_a_row_that_fails_costs_no_other(out: Path) -> None:
    found = lines_of(out)
    reason = found["linear/latent_flow/tuning"]["failed"]
    assert reason == "ValueError: the flow does not fit"
    assert found["linear/latent_flow/seed0/B-time"]["failed"] == reason
    summary = json.loads((out / "summary.json").read_text())
    assert summary["failed"] == 2 and summary["cells"] == 6
    assert "the flow does not fit" in (out / "page.html").read_text()


def test_the_summary_is_small_and_has_an_entry_for_every_row(out: Path) -> None:
    text = (out / "summary.json").read_text()
    summary = json.loads(text)
    assert len(text) < 300_000 and "NaN" not in text and "Infinity" not in text
    assert [(one["row"], one["point"]) for one in summary["rows"]] == [
        ("vae", "B-time"),
        ("vae", "B-flops"),
        ("latent_flow", "B-time"),
        ("latent_flow", "B-flops"),
        ("copy_last", None),
        ("random", None),
    ]
    played = summary["rows"][0]["measures"]["planning"]["equal_candidates"]["returns"]
    assert played["ci95"][0] <= played["mean"] <= played["ci95"][1] and played["episodes"] == 2


class Outline(HTMLParser):
    """Collects the words of a page, what it loads, and tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.loads, self.open = list[str](), list[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_else_and_names_every_row(out: Path) -> None:
    outline = Outline()
    outline.feed((out / "page.html").read_text(encoding="utf-8"))
    words = " ".join(outline.words)
    assert not outline.open and all(one.startswith("data:") for one in outline.loads)
    assert all(name in words for name in ("vae", "latent_flow", "copy_last", "random"))
    assert not re.search(r"\b([nN]a[nN]|inf)\b|None\b(?!: | needed)", words)
    assert "Diffusion has no encoder" in words
    body = (out / "page.html").read_text(encoding="utf-8").split("<body>")[1]
    assert body.index('class="verdict"') < body.index("<h1>")
    assert "<svg" in body


def test_what_is_lost_is_done_again_and_nothing_else(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = out / "cells.jsonl"
    before = lines_of(out)
    kept = file.read_text().splitlines(keepends=True)
    file.write_text("".join(kept[:-2]) + kept[-2][: len(kept[-2]) // 2])  # a crash within a line
    given = (*GIVEN, "--rows", "vae,copy_last,random", "--out", str(out), "--json")
    capsys.readouterr()
    assert call(*given) == 0
    said = capsys.readouterr()
    assert set(lines_of(out)) == set(before)
    again = {json.loads(line)["key"] for line in kept[-2:]}
    started = set(re.findall(r"^(\S+): started", said.err, re.MULTILINE))
    assert started == {key for key in again if "latent_flow" not in key}
    for key in before.keys() - again:
        assert lines_of(out)[key] == before[key]
    assert json.loads(said.out)["page"] == str(out / "page.html")


def test_rows_whose_kind_does_not_exist_are_skipped_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(ROWS, "jepa_none", replace(ROWS["jepa_none"], overrides=("model.kind=nothing",)))
    rows = ("--rows", "jepa_none,vae_diffusion_decoder,random")
    assert call(*GIVEN, *rows, "--out", str(tmp_path / "study")) == 0
    said = capsys.readouterr()
    assert "linear/jepa_none: skipped: model.kind is 'nothing'" in said.err and "model.kind is 'nothing'" in said.out
    assert "linear/vae_diffusion_decoder: skipped: it differs from vae" in said.out
    assert "jepa_none" in (tmp_path / "study" / "page.html").read_text()
    assert "no row is left" in complain(capsys, *GIVEN, "--rows", "jepa_none", "--out", str(tmp_path / "none"))


def test_a_block_that_would_take_too_long_is_left_out_with_its_cost(tmp_path: Path) -> None:
    config = LINEAR.configure(ROWS["vae"].overrides)
    _, model = build(config, layouts_of(config), 0)
    recorded, none = record_episodes(config.env, 9), replace(BUDGET, longest=0.0)
    context = MeasureContext(LINEAR, none, ROWS["vae"], config, recorded, tmp_path, 0, tmp_path, model=model)
    with pytest.raises(NotApplicableError, match="planning through 3 episodes would take about 0 minutes"):
        measure_planning(context)
    with pytest.raises(NotApplicableError, match="an imagined step of 2 dreams takes"):
        study_measures.measure_samples(context)
    assert len(study_measures.measure_samples(replace(context, budget=BUDGET))["energy_score"]) == 3


def test_the_planner_is_the_same_for_every_row_but_for_pixels(tmp_path: Path) -> None:
    config = LINEAR.configure(("icem.std=0.4",))
    recorded = record_episodes(config.env, 9)
    found = {
        name: planner_config(MeasureContext(LINEAR, BUDGET, ROWS[name], config, recorded, tmp_path, 0, tmp_path), ms)
        for name, ms in (("vae", 0.0), ("jepa_sigreg", 0.0), ("oracle", 20.0), ("pixel_diffusion", 0.0))
    }
    assert found["vae"] == found["jepa_sigreg"]
    assert (found["vae"].candidates, found["vae"].iterations, found["vae"].horizon, found["vae"].std) == (64, 3, 4, 0.4)
    assert replace(found["oracle"], max_ms=0.0, iterations=3) == found["vae"]
    assert (found["pixel_diffusion"].candidates, found["pixel_diffusion"].iterations) == (16, 2)


def test_mistakes_are_sentences(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong, words in (
        (["pendulum"], "worldvae study online pendulum"),
        (["tiny", "--families", "rssm", "--minutes", "1"], "worldvae study online tiny"),
        ([], "--budget small or --budget medium"),
        (["--budget", "smal"], "Did you mean 'small'"),
        (["--budget", "small", "--tasks", "wnd"], "Did you mean 'wind'"),
        (["--budget", "small", "--tasks", "wind"], "take --budget medium"),
        (["--budget", "small", "--rows", "jepa_sigrig"], "Did you mean 'jepa_sigreg'"),
        (["--budget", "small", "--seeds", "0"], "--seeds 0"),
        (["--budget", "small", "--jobs", "99"], "--jobs 99"),
        (["--budget", "small", "--nothing"], "no such option: --nothing"),
    ):
        assert words in complain(capsys, "study", "families", *wrong), wrong
    jobs = json.loads((out / "settings.json").read_text())["jobs"]
    (tmp_path / "settings.json").write_text(json.dumps({"budget": "medium", "jobs": jobs}))
    assert "--budget medium" in complain(capsys, *GIVEN, "--rows", "random", "--out", str(tmp_path))
    (tmp_path / "settings.json").write_text("{")
    assert "cannot be read" in complain(capsys, *GIVEN, "--rows", "random", "--out", str(tmp_path))


def test_a_line_that_is_no_cell_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "cells.jsonl"
    file.write_text('{"key": "a", "failed": null}\n[1]\n')
    with pytest.raises(Exception, match="line 2, is not a cell"):
        Ledger(file)
    file.write_text('{"key": "a", "failed": null}\n{"key": "b"')
    ledger = Ledger(file)
    ledger.append({"key": "c", "value": float("nan")})
    assert file.read_text() == '{"key": "a", "failed": null}\n{"key": "c", "value": null}\n'
    assert list(ledger.lines) == ["a", "c"]


def test_an_interrupted_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = replace(LINEAR, budgets={"small": replace(BUDGET, seconds=400.0)})  # a configuration has 100 seconds
    monkeypatch.setitem(TASKS, "linear", long)
    monkeypatch.setattr(study_training, "SAVE_SECONDS", 0.2)
    folder = tmp_path / "work" / "linear_vae_tuning" / "trial0"
    seen = list[int]()

    def interrupt() -> None:
        while not (found := checkpoint.latest(folder)):
            time.sleep(0.02)
        seen.append(int(found.name.rpartition("_")[2]))
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    assert call(*GIVEN, "--rows", "vae", "--out", str(tmp_path)) == EXIT_INTERRUPTED
    assert "the same command goes on" in capsys.readouterr().err
    assert list(lines_of(tmp_path)) == ["linear/data"]
    saved = checkpoint.latest(folder)
    assert saved is not None and checkpoint.load(saved)["updates"] >= seen[0] > 0
