"""The time limit of a planner."""

import time
from collections.abc import Iterator

import torch


class Clock:
    """Stops the rounds of a planner before its time is over.

    Args:
        max_ms: milliseconds from now (0: no limit).
        device: where the rounds are computed; on a GPU a round counts as done once its kernels are.
    """

    def __init__(self, max_ms: float, device: torch.device) -> None:
        self.limit, self.device = max_ms / 1e3, device
        self.begin = self._now()

    def rounds(self, number: int, reserve: int = 0) -> Iterator[int]:
        """Yield 0 .. number - 1: the first in any case, the others while one as long as the longest still fits.

        Args:
            number: of rounds, at most.
            reserve: further rounds for which time must remain.
        """
        longest = 0.0
        for done in range(number):
            start = self._now()
            if done and self.limit and start - self.begin + (1 + reserve) * longest > self.limit:
                return
            yield done
            longest = max(longest, self._now() - start)

    def _now(self) -> float:
        if not self.limit:
            return 0.0
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
