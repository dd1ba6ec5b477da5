import io
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from worldvae.training.logger import Logger


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder: Path) -> list[Any]:
    """Return all summary values in order, as (step, value)."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found = []
    for path in sorted(folder.glob("events.*")):
        for event in LegacyEventFileLoader(str(path)).Load():
            found += [(event.step, value) for value in event.summary.value]
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time that a logger reads, in a list to change it."""
    now = [1000.0]
    monkeypatch.setattr("worldvae.training.logger.time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    return now


def test_a_line_is_there_at_once_in_full_precision(tmp_path, clock) -> None:
    logger = Logger(tmp_path / "run")
    clock[0] += 12.3456
    logger.scalars(7, {"loss": 0.1 + 0.2, "episodes": 3})
    (line,) = lines(tmp_path / "run")
    assert list(line) == ["step", "time", "loss", "episodes"]
    assert line["loss"] == 0.1 + 0.2 and line["step"] == 7 and line["episodes"] == 3 and line["time"] == 12.346
    logger.close()


def test_what_is_not_finite_is_null(tmp_path) -> None:
    logger = Logger(tmp_path)
    logger.scalars(1, {"a": math.nan, "b": math.inf, "c": 1.0})
    logger.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert '"a": null, "b": null, "c": 1.0' in text


def test_scalars_reach_tensorboard(tmp_path) -> None:
    logger = Logger(tmp_path)
    for step in (10, 20):
        logger.scalars(step, {"train/loss": step / 4})
    logger.close()
    found = [(step, value.tag, value.simple_value) for step, value in events(tmp_path)]
    assert found == [(10, "train/loss", 2.5), (20, "train/loss", 5.0)]


def test_films_reach_tensorboard_and_move(tmp_path) -> None:
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (9, 16, 24, 3), dtype=torch.uint8, generator=g)
    logger = Logger(tmp_path)
    logger.gif(30, "dream", frames, fps=10)
    logger.image(31, "frame", frames[0])
    logger.close()
    (step, film), (_, still) = events(tmp_path)
    assert step == 30 and film.tag == "dream" and (film.image.height, film.image.width) == (16, 24)
    with Image.open(io.BytesIO(film.image.encoded_image_string)) as image:
        assert image.format == "GIF" and image.is_animated and image.n_frames == 9 and image.size == (24, 16)
    with Image.open(io.BytesIO(still.image.encoded_image_string)) as image:
        assert image.n_frames == 1


def test_resuming_drops_what_came_after(tmp_path, clock) -> None:
    logger = Logger(tmp_path)
    for step in (10, 20, 30):
        logger.scalars(step, {"x": step})
    logger.close()
    path = tmp_path / "metrics.jsonl"
    rows = [row | {"time": 100.0 * row["step"]} for row in lines(tmp_path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 40, "ti')  # cut short by a crash
    resumed = Logger(tmp_path, resumed_at=20)
    clock[0] += 7.5
    resumed.scalars(25, {"x": 25})
    resumed.close()
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 25]
    assert lines(tmp_path)[-1]["time"] == 2007.5  # seconds continue


def test_tensorboard_forgets_what_came_after(tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for resumed_at, steps in ((None, (10, 20, 30)), (20, (25,))):
        logger = Logger(tmp_path, resumed_at)
        for step in steps:
            logger.scalars(step, {"x": step})
        logger.close()
    for n, path in enumerate(sorted(tmp_path.glob("events.*"), key=lambda p: p.stat().st_mtime_ns)):
        path.rename(tmp_path / f"events.out.tfevents.{n}")  # both were written within one second
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert accumulator.Tags()["scalars"] == ["x"] or accumulator.Tags()["tensors"] == ["x"]
    tags = accumulator.Scalars("x") if accumulator.Tags()["scalars"] else accumulator.Tensors("x")
    assert [event.step for event in tags] == [10, 20, 25]
