"""A run directory has one writer at a time, and a refused writer changes nothing."""

import multiprocessing
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from worldvae.errors import UserError
from worldvae.system.lock import Lock, Taken, claim


def test_a_folder_is_held_once(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    with pytest.raises(UserError, match="another process"):
        Lock(tmp_path)
    lock.close()
    Lock(tmp_path).close()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked there")
def test_a_forked_process_does_not_hold_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    ours, theirs = multiprocessing.Pipe()

    def live() -> None:
        theirs.send("alive")
        theirs.recv()

    child = multiprocessing.get_context("fork").Process(target=live)
    child.start()
    try:
        assert ours.recv() == "alive"
        with pytest.raises(UserError):
            Lock(tmp_path)  # still held here, although the child has closed its inherited descriptor
        lock.close()
        Lock(tmp_path).close()
    finally:
        ours.send(None)
        child.join()


def test_a_failed_claim_removes_only_what_it_created(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, stays in (("new", False), ("there", True)):
        with ExitStack() as opened:
            claim(tmp_path / name, opened)
            assert (tmp_path / name).is_dir()
        assert (tmp_path / name).exists() == stays


def test_a_folder_with_files_stays(tmp_path: Path) -> None:
    with ExitStack() as opened:
        claim(tmp_path / "new", opened)
        (tmp_path / "new" / "film.gif").write_bytes(b"")
    assert (tmp_path / "new" / "film.gif").exists()


def test_a_folder_that_has_to_be_new(tmp_path: Path) -> None:
    with ExitStack() as opened:
        claim(tmp_path / "run", opened, new=True)
        for _ in range(2):
            with pytest.raises(Taken), ExitStack() as other:
                claim(tmp_path / "run", other, new=True)
        assert (tmp_path / "run").is_dir()


def test_a_claim_of_a_held_folder_leaves_it_alone(tmp_path: Path) -> None:
    lock = Lock(tmp_path)
    with pytest.raises(UserError, match="another process"), ExitStack() as opened:
        claim(tmp_path, opened)
    assert tmp_path.is_dir()
    lock.close()


def test_a_folder_deleted_while_it_is_claimed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, opens = tmp_path / "run", os.open

    def slow_open(path: Path, flags: int) -> int:
        descriptor = opens(path, flags)
        monkeypatch.setattr(os, "open", opens)
        folder.rmdir()  # by the process that held it before and could not begin
        return descriptor

    monkeypatch.setattr(os, "open", slow_open)
    with ExitStack() as opened:
        claim(folder, opened)
        with pytest.raises(UserError, match="another process"):
            Lock(folder)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder"), ExitStack() as opened:
        claim(tmp_path / "file" / "run", opened)
