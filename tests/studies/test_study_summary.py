"""Tables and pages of the study of model kinds, from cells with made-up numbers."""

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from worldvae.studies import study_blocks
from worldvae.studies.study_blocks import measure_all
from worldvae.studies.study_context import NotApplicableError
from worldvae.studies.study_page import LARGEST_FILM, page
from worldvae.studies.study_rows import ROWS
from worldvae.studies.study_summary import average, pick, summarise, task_tables, text_tables, within
from worldvae.studies.study_tasks import EVERY_POINT, TASKS
from worldvae.studies.svg import line_plot

pytestmark = pytest.mark.usefixtures("unchecked")


def cell(
    row: str, seed: int, returns: list[float], point: str | None = "B-time", task: str = "linear"
) -> dict[str, Any]:
    predictions = {"horizons": [1, 5, 10], "psnr": [30.0 + seed, None, 20.0], "curve": [30.0, 25.0 + seed]}
    predictions |= {"reward_r2": {"at 10": 0.5}}
    timed = [{"ms": ms, "returns": returns} for ms in (20.0, 100.0)]
    planning = {"equal_candidates": {"returns": returns}, "equal_ms": timed}
    return {
        "key": f"{task}/{row}/seed{seed}/{point}",
        "work": "cell",
        "task": task,
        "row": row,
        "seed": seed,
        "point": point,
        "failed": None,
        "minutes": 1.0,
        "training": {"updates": 10 + seed, "parameters": 1000, "precision": "float32"},
        "measures": {
            "predictions": predictions,
            "speed": {"model": {"steps_per_second": 1e6}},
            "planning": planning,
        },
    }


def failed(row: str, seed: int) -> dict[str, Any]:
    return cell(row, seed, []) | {"failed": "it diverged", "measures": {}, "training": None}


def test_means_are_over_seeds_and_intervals_over_seeds_and_episodes() -> None:
    cells = [cell("vae", 0, [1.0, 3.0]), cell("vae", 1, [5.0, 7.0]), failed("vae", 2)]
    [entry] = summarise(cells, cells)["rows"]
    assert (entry["seeds"], entry["failed"], entry["reason"]) == (3, 1, "it diverged")
    assert entry["training"] == {"updates": 10.5, "parameters": 1000, "precision": "float32"}
    played = pick(entry, "measures", "planning", "equal_candidates", "returns")
    assert played["mean"] == 4.0 and played["episodes"] == 4 and played["ci95"] == [1.5, 6.5]  # 1 has p = 1/64
    assert pick(entry, "measures", "predictions", "psnr") == [30.5, None, 20.0]
    assert pick(entry, "measures", "predictions", "horizons") == [1, 5, 10]
    assert pick(entry, "measures", "planning", "equal_ms", 1, "returns", "mean") == 4.0


def test_what_is_not_a_number_does_not_count() -> None:
    assert average([1.0, None, math.nan, 3.0]) == 2.0
    assert average([None, math.nan]) is None and average([]) is None
    assert average([{"a": [1.0]}, {"a": [3.0, 5.0], "b": "x"}]) == {"a": [2.0, 5.0], "b": "x"}
    assert average([{"returns": []}]) == {"returns": None}


def test_a_table_has_a_line_for_every_row_and_point() -> None:
    cells = [cell("vae", 0, [1.0, 3.0]), cell("vae", 0, [2.0], "B-flops"), failed("jepa_sigreg", 0)]
    summary = summarise(cells, cells, {"linear/pixel_energy": "it does not exist"})
    [table] = task_tables(summary).values()
    assert [line[:3] for line in table[1:]] == [
        ["vae", "B-time", "0 of 1"],
        ["vae", "B-flops", "0 of 1"],
        ["jepa_sigreg", "B-time", "1 of 1"],
    ]
    assert table[1][-1] == "2.0 [1.0, 3.0]" and table[1][table[0].index("at 10")] == "20.0"
    text = text_tables(summary)
    assert "linear/jepa_sigreg/B-time: 1 of 1 failed: it diverged" in text
    assert "linear/pixel_energy: skipped: it does not exist" in text


def test_a_long_summary_drops_curves_first() -> None:
    cells = [cell(row, 0, [1.0, 2.0], point.name, task) for task in TASKS for row in ROWS for point in EVERY_POINT]
    summary = summarise(cells, cells)
    whole = len(json.dumps(summary))
    assert within(summary, whole) == summary
    shorter = within(summary, whole - 1)
    assert shorter["dropped"] == ["curve"] and len(json.dumps(shorter)) < whole
    assert within(summary, 10)["dropped"] == ["curve", "tried", "training"]
    assert summary["rows"][0]["measures"]["predictions"]["curve"]


def test_a_page_escapes_words_and_takes_small_films_alone(tmp_path: Path) -> None:
    cells = [cell("vae", 0, [1.0, 2.0]), cell("jepa_sigreg", 0, [3.0, 4.0]), failed("mdn_rnn", 0)]
    cells[2]["failed"] = "<script>alert(1)</script>"
    for one, size in zip(cells, (20, LARGEST_FILM), strict=False):
        one["measures"]["film"] = {"film": "dream.gif"}
        folder = tmp_path / one["key"].replace("/", "_")
        folder.mkdir()
        (folder / "dream.gif").write_bytes(b"GIF89a" + b"0" * size)
    text = page(summarise(cells, cells), cells, tmp_path, "Two seeds & a machine.")
    assert text.count("data:image/gif;base64,") == 1 and "dreams of vae" in text
    assert "<script" not in text and "&lt;script&gt;" in text and "Two seeds &amp; a machine." in text
    assert all(name in text for name in ("vae", "jepa_sigreg", "mdn_rnn"))
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_a_plot_is_xml_with_a_line_for_every_series() -> None:
    lines = {"a<b": [(1.0, 2.0), (10.0, 4.0)], "gone": [(1.0, math.nan)], "one": [(0.0, 1.0), (5.0, 3.0)]}
    root = ElementTree.fromstring(line_plot("title", "x", "y", lines, log_x=True))
    space = "{http://www.w3.org/2000/svg}"
    groups = root.findall(f"{space}g")
    assert [group.findtext(f"{space}title") for group in groups] == ["a<b", "one"]
    assert [len(group.findall(f"{space}circle")) for group in groups] == [2, 1]  # 0 has no logarithm
    left, right = groups[0].findall(f"{space}circle")
    assert float(left.attrib["cx"]) < float(right.attrib["cx"]) and float(left.attrib["cy"]) > float(right.attrib["cy"])
    ElementTree.fromstring(line_plot("empty", "x", "y", {"a": []}))
    ElementTree.fromstring(line_plot("flat", "x", "y", {"a": [(1.0, 0.0)]}))


def test_a_measure_that_fails_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(_: Any) -> dict[str, Any]:
        raise ValueError("no frames\nand more")

    def missing(_: Any) -> dict[str, Any]:
        raise NotApplicableError("there is no model")

    measures = {"planning": breaks, "speed": missing, "predictions": lambda _: {"psnr": 1.0}}
    monkeypatch.setattr(study_blocks, "MEASURES", measures)
    assert measure_all(None) == {  # type: ignore[arg-type]
        "planning": {"failed": "ValueError: no frames"},
        "speed": {"left_out": "there is no model"},
        "predictions": {"psnr": 1.0},
    }
