"""Ctrl-C during a training: the first asks it to stop, the second stops it at once."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C (or SIGTERM) call `stop`, and a second one raise KeyboardInterrupt at once.

    Python handles signals in its main thread alone: in another thread this does nothing, and the caller has to stop the
    training.

    Args:
        stop: asks the training to end after the current step.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: object) -> None:
        stop()
        print("\nStopping and saving; Ctrl-C again stops at once, without saving.", file=sys.stderr, flush=True)
        signal.signal(number, signal.default_int_handler)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
