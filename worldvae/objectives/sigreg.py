"""SIGReg: how far the latents of a batch are from draws of N(0, I), measured along random directions."""

import torch
from jaxtyping import Float
from torch import Tensor

REACH = 3.0
"""Characteristic functions are compared from -REACH to REACH."""


def random_directions(
    number: int, size: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> Float[Tensor, "size number"]:
    """Return unit vectors, uniform on the sphere, as columns.

    Args:
        number: how many.
        size: length of each.
        generator: source of the draws, on `device`.
        device: where they are needed.
    """
    drawn = torch.randn(size, number, generator=generator, device=device)
    return torch.nn.functional.normalize(drawn, dim=0)


def sigreg(
    latents: Float[Tensor, "sample latent"], directions: Float[Tensor, "latent direction"], knots: int = 17
) -> Float[Tensor, ""]:
    """Return the statistic of Epps and Pulley against N(0, 1), averaged over one-dimensional projections of `latents`.

    With the characteristic function phi(t) = exp(-t^2 / 2) of N(0, 1), and the samples u_n of one projection,

        N * integral |1/N sum_n exp(i t u_n) - phi(t)|^2 phi(t) dt,    t from -3 to 3 by the trapezoid rule.

    Because of the factor N it does not shrink with the number of samples if these are from N(0, I): its expectation is
    then the integral of (1 - phi(t)^2) phi(t), about 1.06. For latents that have collapsed to one point it is
    proportional to N.

    Args:
        latents: all samples, pooled; at least about 200 are needed.
        directions: unit vectors as columns (`random_directions`), drawn anew for each batch.
        knots: points of the integral from 0 to 3; the integrand is even.

    References: Balestriero & LeCun 2025, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the
        Heuristics"; Maes et al. 2026, "LeWorldModel", for its weight 0.09 beside the mean squared error of prediction;
        Epps & Pulley 1983, "A test for normality based on the empirical characteristic function".
    """
    t = torch.linspace(0.0, REACH, knots, device=latents.device, dtype=latents.dtype)
    phi = torch.exp(-t.square() / 2)
    weights = torch.full_like(t, 2 * REACH / (knots - 1))  # both signs of t; half of that at the two ends
    weights[0] = weights[-1] = REACH / (knots - 1)
    angles = (latents @ directions.to(latents.dtype)).unsqueeze(-1) * t
    distance = (angles.cos().mean(0) - phi).square() + angles.sin().mean(0).square()
    return (distance @ (weights * phi)).mean() * len(latents)
