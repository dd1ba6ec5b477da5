"""How many cores this process may use: those of the machine, less those that its affinity and its container exclude."""

import math
import os
from pathlib import Path

import torch

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process can keep busy, at least 1.

    That is the smallest of the machine's cores, the process's affinity (`taskset`) and the CPU quota of its container,
    rounded up. A quota does not hide cores: with as many threads as there are cores, each is stopped for most of its
    time, and all of them wait for those that are stopped.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(affinity, _quota())))


def limit_threads() -> None:
    """Let torch use no more threads than there are usable cores; fewer, if `OMP_NUM_THREADS` says so."""
    torch.set_num_threads(min(torch.get_num_threads(), usable_cores()))


def _quota(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the CPU quota of this process in cores, infinite if it has none.

    Reference: the Linux kernel's documentation of cgroups, `cpu.max` (version 2) and `cpu.cfs_quota_us` (version 1).
    """
    quotas = [math.inf]
    for folder in _cgroups(root, own):
        quota, period = _words(folder / "cpu.max", 2)
        if not quota:
            (quota,), (period,) = _words(folder / "cpu.cfs_quota_us", 1), _words(folder / "cpu.cfs_period_us", 1)
        if quota.isdecimal() and period.isdecimal() and int(period):  # "max" and -1 are no quota
            quotas.append(int(quota) / int(period))
    return min(quotas)


def _cgroups(root: Path, own: Path) -> list[Path]:
    """Return the folders of the groups that limit this process: its own and all above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "cpu" in controllers.split(","):
            base = root / "cpu" if controllers else root
            inner = base / path.lstrip("/")
            folders += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(base)]
    return folders


def _words(path: Path, number: int) -> list[str]:
    """Return the first words of a file, empty ones where it has fewer or is not there."""
    try:
        words = path.read_text().split()
    except OSError:
        words = []
    return [*words, *[""] * number][:number]
