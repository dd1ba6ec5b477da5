"""The progress of a training: a live line in a terminal, a line every half minute elsewhere."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.text import Text

REPORT_SECONDS = 30.0


def say(text: str) -> None:
    """Print a line for the user on stderr; stdout is for programs."""
    print(text, file=sys.stderr, flush=True)


class Progress:
    """Shows return, updates, frames per second and remaining time on stderr.

    Args:
        steps: environment steps the training is going to take.
        updates: number of updates at which the training stops (0: no limit).
    """

    def __init__(self, steps: int, updates: int = 0) -> None:
        self.steps, self.updates = steps, updates
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._began = self._last = time.monotonic()
        self._first: tuple[int, float] | None = None

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, step: int, updates: int, returns: Sequence[float]) -> None:
        """Show the progress; cheap enough to be called at every step."""
        now = time.monotonic()
        if self._first is None or (self._first[1] == 0 and updates > 0):
            # The rate of the prefill says nothing about what follows: measure anew from the first update on.
            self._first, self._began = (step, float(updates)), now
        if self._console.is_terminal:
            if now - self._last > 0.25:
                self._last = now
                self._live.update(Text(self.line(step, updates, returns, now)))
        elif now - self._last > REPORT_SECONDS:
            self._last = now
            say(self.line(step, updates, returns, now))

    def line(self, step: int, updates: int, returns: Sequence[float], now: float) -> str:
        """Return the progress as one line."""
        assert self._first is not None
        rate = (step - self._first[0]) / max(now - self._began, 1e-9)
        mean = f"{np.mean(returns):8.1f}" if len(returns) else "       –"
        left = self._left(step, updates, rate, now)
        return (
            f"step {step:6d} of {self.steps} | return {mean} (last {len(returns)} episodes) | {updates} updates | "
            f"{rate:5.1f} frames/s | {left} left"
        )

    def _left(self, step: int, updates: int, rate: float, now: float) -> str:
        if rate <= 0:
            return "?"
        seconds = (self.steps - step) / rate
        if self.updates and self._first is not None and updates > self._first[1]:
            pace = (updates - self._first[1]) / (now - self._began)
            seconds = min(seconds, (self.updates - updates) / pace)
        return f"{int(seconds // 60)}:{int(seconds % 60):02d}"
