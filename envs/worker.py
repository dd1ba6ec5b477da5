"""A process that plays some of a pool's environments."""

import contextlib
import multiprocessing
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, cast

import torch
from gymnasium.vector.utils import CloudpickleWrapper

from worldvae.envs.buffers import Buffers, check_layouts, reset_rows, step_rows
from worldvae.envs.world_env import WorldEnv
from worldvae.errors import UserError
from worldvae.types import ActionLayout, ObservationLayout

Maker = Callable[[], WorldEnv]


def start_method() -> BaseContext:
    """Return how workers are started: forked on Linux, spawned elsewhere.

    A forked worker is there in 0.02 s and knows whatever the program has registered or defined; a spawned one imports
    torch again (3 s) and runs the user's script again, which must then be guarded by `if __name__ == "__main__"`.
    Forking is safe with torch here because a worker uses neither CUDA nor more than one thread: it never
    enters the thread pool that it did not inherit. (macOS's system libraries do not survive a fork.)
    """
    return multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


class Worker:
    """The caller's end of a worker process.

    Args:
        context: From `start_method`.
        makers: Functions that make its environments.
        buffers: The pool's shared buffers.
        first: Row of its first environment.
        layouts: What its environments must look like.
    """

    def __init__(
        self,
        context: BaseContext,
        makers: Sequence[Maker],
        buffers: Buffers,
        first: int,
        layouts: tuple[ObservationLayout, ActionLayout],
    ) -> None:
        self.rows = slice(first, first + len(makers))
        self._pipe, theirs = context.Pipe()
        args = (theirs, self._pipe, [CloudpickleWrapper(maker) for maker in makers], buffers, first, layouts)
        self._process = context.Process(target=_work, args=args, daemon=True)  # type: ignore[attr-defined]
        with warnings.catch_warnings():
            # Python 3.12 warns of any fork while there are threads: see `start_method`
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()

    def send(self, name: str, rows: Sequence[Any]) -> None:
        """Ask for "reset" (with a seed or None per row) or "step" (with a flag per row)."""
        try:
            self._pipe.send((name, rows))
        except OSError:
            raise self._death() from None

    def wait(self) -> None:
        """Wait until the environments have done what was asked for.

        Raises:
            UserError: The one that an environment raised, or one that says that the process died.
        """
        try:
            kind, message = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if kind == "user":
            raise UserError(message)
        if kind == "bug":
            raise RuntimeError(f"an environment worker failed:\n{message}")

    def close(self) -> None:
        """Let the process close its environments and end."""
        with contextlib.suppress(OSError):
            self._pipe.send(None)
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _death(self) -> UserError:
        self._process.join(timeout=5)
        return UserError(
            f"an environment process died with exit code {self._process.exitcode} (-9: killed, mostly for lack of "
            "memory; -11: the environment crashed): use fewer environments, or mode='sync' to see where."
        )


def _work(
    pipe: Connection,
    parent: Connection,
    makers: Sequence[CloudpickleWrapper],
    buffers: Buffers,
    first: int,
    layouts: tuple[ObservationLayout, ActionLayout],
) -> None:
    """Main function of the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller handles Ctrl-C and then closes the pool
    parent.close()  # a copy of the caller's end would keep this process from noticing that the caller is gone
    torch.set_num_threads(1)
    envs: list[WorldEnv] = []

    def build(_: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the pool has made one of them already: it has been said
            envs.extend(cast(WorldEnv, maker.fn()) for maker in makers)
        check_layouts(envs, *layouts)

    tasks: dict[str, Callable[[Any], None]] = {
        "build": build,
        "reset": lambda seeds: reset_rows(envs, buffers, first, seeds),
        "step": lambda active: step_rows(envs, buffers, first, active),
    }
    request: Any = ("build", ())
    while request is not None:
        try:
            tasks[request[0]](request[1])
            answer = ("done", "")
        except UserError as error:
            answer = ("user", str(error))
        except Exception:
            answer = ("bug", traceback.format_exc())
        try:
            pipe.send(answer)
            request = pipe.recv()
        except (EOFError, OSError):
            break
    for env in envs:
        env.close()
