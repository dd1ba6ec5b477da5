"""A child process that works while the caller goes on."""

import contextlib
import multiprocessing
import multiprocessing.util
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from worldvae.errors import UserError

Tasks = dict[str, Callable[[Any], Any]]
Build = Callable[..., Tasks]


def start_method(learns: bool = False) -> BaseContext:
    """Return how processes are started: forked on Linux, spawned elsewhere.

    A forked process starts in 0.02 s and has all that the program has registered or defined; a spawned one imports
    torch again (3 s) and runs the user's script again, which must then be guarded by `if __name__ == "__main__"`.
    Forking is safe with torch here because the process uses neither CUDA nor more than one thread: it never
    enters the thread pool that it did not inherit. (macOS's system libraries do not survive a fork.) Where there is an
    accelerator, torch's gradients have threads for it that a fork breaks: a process that `learns` is spawned there.
    """
    forks = sys.platform == "linux" and not (learns and torch.accelerator.is_available())
    return multiprocessing.get_context("fork" if forks else "spawn")


class Child:
    """The caller's end of a process that does named tasks on one thread, one after the other.

    Args:
        build: called in the process as `build(opened, *arguments)`; returns its tasks, functions of one argument, and
            may enter into `opened` (an ExitStack) what has to be closed at the end. The first `wait` waits for it.
        arguments: of `build`.
        what: the process, in the words of an error message.
        advice: what to do if it dies, a sentence's end.
        learns: whether it computes gradients.
    """

    def __init__(
        self, build: Build, arguments: tuple[Any, ...], what: str, advice: str, *, learns: bool = False
    ) -> None:
        self.what, self.advice = what, advice
        self._asked = True  # to build
        context = start_method(learns)
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, self._pipe, build, arguments), daemon=True
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of any fork while there are threads: see `start_method`
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()
        # At the latest when the caller exits, and before multiprocessing waits for its children there.
        self.close = multiprocessing.util.Finalize(self, _end, (self._pipe, self._process), exitpriority=0)
        """Let the process close its resources and end; closing twice does nothing."""

    def send(self, task: str, argument: Any = None) -> None:
        """Ask for a task; the caller goes on meanwhile, and must `wait` before it asks for the next one."""
        assert not self._asked, "something is under way: wait for it first"
        try:
            self._pipe.send((task, argument))
        except OSError:
            raise self._death() from None
        self._asked = True

    def wait(self, seconds: float | None = None) -> Any:
        """Wait until the process has done its task, and return the result.

        Args:
            seconds: how long; default: for ever.

        Raises:
            UserError: The one that the task raised, or one that says that the process died or took too long.
        """
        try:
            if not self._pipe.poll(seconds):
                raise UserError(f"{self.what} did not answer within {seconds:g} seconds: {self.advice}")
            kind, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._asked = False
            raise self._death() from None
        self._asked = False
        if kind == "user":
            raise answer
        if kind == "bug":
            raise RuntimeError(f"{self.what} failed:\n{answer}")
        return answer

    def _death(self) -> UserError:
        self._process.join(timeout=5)
        return UserError(
            f"{self.what} died with exit code {self._process.exitcode} (-9: killed, mostly for lack of memory; "
            f"-11: it crashed): {self.advice}"
        )


def _end(pipe: Connection, process: BaseProcess) -> None:
    with contextlib.suppress(OSError):
        pipe.send(None)
    process.join(timeout=5)
    if process.is_alive():
        process.kill()
        process.join()
    pipe.close()


def _serve(pipe: Connection, parent: Connection, build: Build, arguments: tuple[Any, ...]) -> None:
    """Main function of the process."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the caller handles them and then closes the process
        signal.signal(number, signal.SIG_IGN)
    parent.close()  # a copy of the caller's end would keep this process from noticing that the caller is gone
    torch.set_num_threads(1)
    with ExitStack() as opened:
        tasks: Tasks = {"": lambda _: tasks.update(build(opened, *arguments))}
        request: Any = ("", None)
        while request is not None:
            try:
                answer = ("done", tasks[request[0]](request[1]))
            except UserError as error:
                answer = ("user", error)
            except Exception:
                answer = ("bug", traceback.format_exc())
            try:
                pipe.send(answer)
                request = pipe.recv()
            except (EOFError, OSError):
                break
