"""Median durations after a warm-up, and the number of floating-point operations."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], Any]


def median_seconds(work: Work, device: torch.device, budget: float = 3.0) -> float:
    """Return the median duration of `work` in seconds: after a warm-up, 3 to 200 calls, or `budget` seconds.

    On an accelerator each repetition ends when the device has finished it.
    """
    work()
    work()
    _wait(device)
    durations: list[float] = []
    began = time.perf_counter()
    while len(durations) < 3 or (len(durations) < 200 and time.perf_counter() - began < budget):
        durations.append(once(work, device))
    return statistics.median(durations)


def once(work: Work, device: torch.device) -> float:
    """Return the duration of one call of `work` in seconds."""
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def flops(work: Work) -> int:
    """Return the floating-point operations of matrix products and convolutions in one call, counted as they run.

    Second derivatives are counted, too.
    """
    counter = FlopCounterMode(display=False)
    # Which modules operations belong to is not asked. Following modules would fail within `torch.autograd.grad` with
    # respect to a leaf, in which the score of an energy is computed.
    counter.mod_tracker = _NoModules()  # type: ignore[assignment]
    with counter:
        work()
    return int(counter.get_total_flops())


class _NoModules:
    """What a counter asks of the modules: there is one, which is everything."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
