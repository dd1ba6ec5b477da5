"""Peak rates of the machine: matrix products, convolutions and copies, measured when they are needed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from worldvae.bench.timing import Work, flops, median_seconds, once
from worldvae.system.cores import usable_cores
from worldvae.system.machine import processor

REPETITIONS = 5
"""Number of repetitions that must fit into the budget."""


@dataclass(frozen=True)
class Limits:
    """Peak rates of one machine.

    Attributes:
        matmul: operations per second of a large matrix product, by dtype ("float32", "bfloat16").
        conv: the same for a convolution of a frame encoder, forward and backward.
        copy: bytes copied per second within main memory; each byte counts once.
    """

    matmul: dict[str, float]
    conv: dict[str, float]
    copy: float


def measure_limits(device: torch.device, budget: float = 1.0) -> Limits:
    """Measure the peak rates to which everything else is compared, for about `budget` seconds each."""
    dtypes = (torch.float32, torch.bfloat16)
    matmul = {_name(dtype): _matmul(dtype, device, budget) for dtype in dtypes}
    conv = {_name(dtype): _conv(dtype, device, budget) for dtype in dtypes}
    return Limits(matmul, conv, _copy(budget))


def unrest(before: Limits, after: Limits) -> float:
    """Return the largest factor by which a computing rate differs: 1 on an otherwise idle machine.

    (Copies are left out: their speed depends on the state of the caches.)
    """
    pairs = [(before.matmul, after.matmul), (before.conv, after.conv)]
    return max(max(a[name] / b[name], b[name] / a[name]) for a, b in pairs for name in a)


def machine(device: torch.device) -> dict[str, object]:
    """Return a description of this machine."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": processor(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _matmul(dtype: torch.dtype, device: torch.device, budget: float) -> float:
    """Time square products: the largest that the budget allows."""

    def product(size: int) -> Work:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return lambda: torch.mm(a, b, out=out)

    return _rate(product, (8192,) if device.type == "cuda" else (256, 512, 1024, 2048), device, budget)


def _conv(dtype: torch.dtype, device: torch.device, budget: float) -> float:
    """Time 32 to 64 channels, kernel 4, stride 2, on up to 512 maps of 32 x 32 in channels-last memory."""
    layout = torch.channels_last

    def step(maps: int) -> Work:
        x = torch.randn(maps, 32, 32, 32, device=device, dtype=dtype).to(memory_format=layout).requires_grad_()
        weight = torch.randn(64, 32, 4, 4, device=device, dtype=dtype).to(memory_format=layout).requires_grad_()
        gradient = torch.randn(maps, 64, 16, 16, device=device, dtype=dtype).to(memory_format=layout)
        return lambda: torch.autograd.grad(F.conv2d(x, weight, stride=2, padding=1), (x, weight), gradient)

    return _rate(step, (32, 128, 512), device, budget)


def _rate(work_of: Callable[[int], Work], sizes: Sequence[int], device: torch.device, budget: float) -> float:
    """Return the operations per second of the largest work that can be repeated within the budget.

    A processor without instructions for a type may be a hundred times slower in it than in another.
    """
    for size in sizes:  # each has up to eight times the operations of its predecessor
        work = work_of(size)
        work()
        if 8 * REPETITIONS * once(work, device) > budget:
            break
    return flops(work) / median_seconds(work, device, budget)


def _copy(budget: float) -> float:
    source = torch.ones(2**26, dtype=torch.uint8)
    target = torch.empty_like(source)
    return source.numel() / median_seconds(lambda: target.copy_(source), source.device, budget)
