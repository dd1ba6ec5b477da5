"""Which arithmetic a processor is faster in: measured, because its list of instructions misleads.

A processor without bfloat16 instructions computes in bfloat16 all the same, several times slower than in float32; one
with them may still be slower in it, where convolutions are narrow. So both are tried, for about a tenth of a second.
"""

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PRECISIONS = ("auto", "float32", "bfloat16")

TIMED_ROWS, TIMED_FRAMES = 256, 64
"""Rows of the timed product and frames of the timed convolution."""
MAX_TIME_SHARE = 0.95
"""bfloat16, the less exact type, has to take less than this share of float32's time."""
MEASURE_SECONDS = 0.1
"""Duration of the measurement without the warm-up."""
MAX_CLOCK_RESOLUTION = 1e-4
"""In seconds: a coarser clock cannot time the turns."""


@cache
def faster_precision(device: torch.device, hidden: int, maps: tuple[int, int, int] | None) -> str:
    """Return "float32" or "bfloat16", whichever a training step of a model of this shape takes less time in.

    The measurement times a normalised layer of a perceptron and, for a model of frames, one of its convolutions,
    forward and backward. Each shape is measured once per process, so that all models of one shape in it agree. Where
    both take nearly the same time, another process may choose the other one: a run therefore stores its choice.

    An accelerator is not measured: it gets bfloat16 if it has instructions for it.

    Args:
        device: where the model lives.
        hidden: width of its perceptrons.
        maps: channels, height and width of the maps that its convolutions work on; None if it sees no frames.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type != "cpu":
        return "float32"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the processor time of one thread does not include that of other programs
    try:
        with torch.inference_mode(False), torch.enable_grad():
            works = [_product(hidden)] if maps is None else [_product(hidden), _convolution(*maps)]
            return "bfloat16" if _bfloat16_share(works) < MAX_TIME_SHARE else "float32"
    finally:
        torch.set_num_threads(threads)


def _bfloat16_share(works: list[Callable[[bool], None]]) -> float:
    """Return the processor time that `works` take in bfloat16, as a share of that in float32.

    The two take turns, and the fastest turn of each counts.
    """
    # A system that counts processor time by its scheduler's ticks (15 ms on Windows) cannot tell the turns apart.
    fine = time.get_clock_info("thread_time").resolution < MAX_CLOCK_RESOLUTION
    now = time.thread_time if fine else time.perf_counter
    fastest = [[float("inf"), float("inf")] for _ in works]
    for work in works:  # the first call in each type compiles kernels
        work(False)
        work(True)
    began = now()
    while now() - began < MEASURE_SECONDS:
        for times, work in zip(fastest, works, strict=True):
            for narrow in (False, True):
                start = now()
                work(narrow)
                times[narrow] = min(times[narrow], now() - start)
    return sum(times[True] for times in fastest) / sum(times[False] for times in fastest)


def _product(hidden: int) -> Callable[[bool], None]:
    return _trained(F.linear, (TIMED_ROWS, hidden), (hidden, hidden))


def _convolution(channels: int, height: int, width: int) -> Callable[[bool], None]:
    def layer(x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(x, weight, None, stride=2, padding=1).permute(0, 2, 3, 1)

    return _trained(layer, (TIMED_FRAMES, channels, height, width), (2 * channels, channels, 4, 4))


def _trained(
    layer: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], weights: tuple[int, ...]
) -> Callable[[bool], None]:
    """Return one training step of a layer, its norm and its activation, in bfloat16 or not."""
    x, weight = _numbers(shape), _numbers(weights)
    norm = nn.LayerNorm(weights[0], device="cpu", dtype=torch.float32)

    def step(narrow: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            out = F.silu(norm(layer(x, weight)))
        torch.autograd.grad(out.float().mean(), (x, weight))

    return step


def _numbers(shape: tuple[int, ...]) -> Tensor:
    layout = torch.channels_last if len(shape) == 4 else torch.contiguous_format
    numbers = torch.full(shape, 0.01, device="cpu", dtype=torch.float32)
    return numbers.to(memory_format=layout).requires_grad_()
