"""The probability-flow equation dx / d sigma = (x - D(x, sigma)) / sigma, solved from noise to data.

Reference: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models", algorithm 1.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""D(x, sigma) of rows `[batch, entry]`, all at the same sigma."""

ODESolver = Literal["euler", "heun"]

RHO = 7.0
"""Curvature of the grid: the larger, the more steps at little noise."""


def sigma_grid(steps: int, low: float, high: float) -> list[float]:
    """Return `steps` + 1 noise levels: from `high` down to `low` with sigma^(1 / 7) in equal steps, and then 0."""
    first, last = high ** (1 / RHO), low ** (1 / RHO)
    return [*((first + k / max(1, steps - 1) * (last - first)) ** RHO for k in range(steps)), 0.0]


def integrate(
    denoise: Denoise, x: Float[Tensor, "batch entry"], sigmas: Sequence[float], solver: ODESolver = "euler"
) -> Float[Tensor, "batch entry"]:
    """Follow the flow along the grid `sigmas`, whose first level is the noise in x.

    The error of "euler" is of first order in the step, that of "heun", at twice the price, of second order. A step to
    sigma = 0 is Euler's in both: it ends at D.
    """
    for now, after in pairwise(sigmas):
        slope = (x - denoise(x, now)) / now
        there = x + (after - now) * slope
        if solver == "heun" and after > 0:
            slope = (slope + (there - denoise(there, after)) / after) / 2
            there = x + (after - now) * slope
        x = there
    return x
