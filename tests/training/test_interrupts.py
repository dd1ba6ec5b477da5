"""Ctrl-C: the first one requests the end, the second one ends at once; afterwards the old handlers are restored."""

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from worldvae.training.interrupts import interruptible

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_one_ends(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    asked: list[int] = []
    with pytest.raises(KeyboardInterrupt), interruptible(lambda: asked.append(number)):
        signal.raise_signal(number)
        assert asked == [number]
        assert "Ctrl-C again stops at once" in capsys.readouterr().err
        signal.raise_signal(number)
    assert asked == [number]
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_another_thread_leaves_the_signals_alone() -> None:
    def inside() -> list[object]:
        with interruptible(lambda: None):
            return [signal.getsignal(each) for each in SIGNALS]

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(inside).result() == [signal.getsignal(each) for each in SIGNALS]
