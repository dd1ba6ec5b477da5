"""Langevin chains: x' = x - h / 2 * grad E(x) + sqrt(h) * kick, whose law is close to exp(-E) for a small step h.

For a Gaussian of variance v the chain's own stationary law is the Gaussian of variance v / (1 - h / 4 v).

Reference: Welling & Teh 2011, "Bayesian Learning via Stochastic Gradient Langevin Dynamics", section 2.
"""

import math
from collections.abc import Callable, Iterable

from jaxtyping import Float
from torch import Tensor

from worldvae.objectives.probability_ode import Denoise

Gradient = Callable[[Tensor], Tensor]
"""The gradient of an energy at rows `[batch, entry]`."""


def langevin(
    gradient: Gradient, x: Float[Tensor, "batch entry"], step: float, kicks: Iterable[Tensor]
) -> Float[Tensor, "batch entry"]:
    """Return the end of the chain of step size h that starts at x and has one standard normal kick a step."""
    scale = math.sqrt(step)
    for kick in kicks:
        x = x - step / 2 * gradient(x) + scale * kick
    return x


def annealed(
    denoise: Denoise,
    x: Float[Tensor, "batch entry"],
    sigmas: Iterable[float],
    step: float,
    kicks: Callable[[int], Iterable[Tensor]],
) -> Float[Tensor, "batch entry"]:
    """Run one chain at each noise level, each from the end of the one before; return the last end, denoised.

    The gradient at sigma is (x - D(x, sigma)) / sigma^2, and the step size (step * sigma)^2. A chain of n steps no
    longer mixes where sigma is far below s / (step * sqrt(n)), s being the spread of the data: what noise is left there
    stays in x, as spread. (A Gaussian of 0.4, 40 steps a level: step 0.3 gives 0.51, step 1 gives 0.41.)

    Args:
        denoise: D(x, sigma).
        x: start, at the first noise level.
        sigmas: noise levels, the largest first; those of 0 are left out.
        step: size of a step in units of sigma.
        kicks: the standard normal kicks of the chain at the level of this number.

    Reference: Song & Ermon 2019, "Generative Modeling by Estimating Gradients of the Data Distribution", algorithm 1.
    """
    levels = [sigma for sigma in sigmas if sigma > 0]
    for number, sigma in enumerate(levels):

        def gradient(at: Tensor, sigma: float = sigma) -> Tensor:
            return (at - denoise(at, sigma)) / sigma**2

        x = langevin(gradient, x, (step * sigma) ** 2, kicks(number))
    return denoise(x, levels[-1])
