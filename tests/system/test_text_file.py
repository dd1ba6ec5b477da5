"""A file that is replaced is whole at every moment."""

from pathlib import Path

import pytest

from worldvae.system.text_file import replace_text


def test_the_new_text_takes_the_place_of_the_old_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text in ("one: ü\n", "two: 2\r\n", ""):
        replace_text(path, text)
        assert path.read_bytes() == text.encode() and list(tmp_path.iterdir()) == [path]


def test_the_old_text_stays_if_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    replace_text(path, "old")
    (tmp_path / "config.yaml.part").mkdir()
    with pytest.raises(OSError):
        replace_text(path, "new")
    assert path.read_text() == "old"
