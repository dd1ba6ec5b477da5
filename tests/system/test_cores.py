"""The number of usable cores: affinity, and a container's quota with either version of cgroups."""

import os
from pathlib import Path

import pytest
import torch

from worldvae.system import cores
from worldvae.system.cores import limit_threads, usable_cores

NONE = float("inf")


@pytest.fixture
def groups(tmp_path: Path) -> tuple[Path, Path]:
    """Return the root of the cgroups, and the file that names the cgroup of the process."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root", tmp_path / "own"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(("text", "quota"), [("150000 100000\n", 1.5), ("max 100000\n", NONE), ("", NONE)])
def test_version_2(groups: tuple[Path, Path], text: str, quota: float) -> None:
    root, own = groups
    own.write_text("0::/pod/container\n")
    write(root / "pod" / "container" / "cpu.max", text)
    assert cores._quota(root, own) == quota


def test_the_tightest_of_nested_groups_counts(groups: tuple[Path, Path]) -> None:
    root, own = groups
    own.write_text("0::/pod/container\n")
    write(root / "pod" / "container" / "cpu.max", "400000 100000")
    write(root / "pod" / "cpu.max", "200000 100000")
    assert cores._quota(root, own) == 2.0


@pytest.mark.parametrize(("text", "quota"), [("50000\n", 0.5), ("-1\n", NONE)])
def test_version_1(groups: tuple[Path, Path], text: str, quota: float) -> None:
    root, own = groups
    own.write_text("5:cpu,cpuacct:/job\n3:memory:/job\n")
    write(root / "cpu" / "job" / "cpu.cfs_quota_us", text)
    write(root / "cpu" / "job" / "cpu.cfs_period_us", "100000\n")
    assert cores._quota(root, own) == quota


def test_without_cgroups_there_is_no_quota(groups: tuple[Path, Path]) -> None:
    assert cores._quota(*groups) == NONE


@pytest.mark.parametrize(("affinity", "quota", "expected"), [(8, 1.5, 2), (1, 4.0, 1), (4, NONE, 4), (2, 0.1, 1)])
def test_the_smaller_of_affinity_and_quota(
    affinity: int, quota: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr(cores, "_quota", lambda: quota)
    assert usable_cores() == expected


@pytest.mark.parametrize(("threads", "there", "expected"), [(3, 2, 2), (1, 2, 1), (2, 4, 2)])
def test_threads_are_never_more_than_cores_and_never_more_than_asked_for(
    threads: int, there: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: there)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    limit_threads()
    assert torch.get_num_threads() == expected
    torch.set_num_threads(before)
