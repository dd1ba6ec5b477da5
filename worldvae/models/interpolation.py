"""Curves between two latents: a straight line, an arc of a sphere, or the shortest curve in the decoder's metric."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Surface = Callable[[Float[Tensor, "*batch latent"]], Float[Tensor, "..."]]
"""A decoder; distances between its outputs measure distances in the latent space."""


def lerp(
    a: Float[Tensor, "batch latent"], b: Float[Tensor, "batch latent"], steps: int
) -> Float[Tensor, "step batch latent"]:
    """Return a + t (b - a) for `steps` values of t from 0 to 1.

    Raises:
        ValueError: if there are fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"steps={steps} is too few for a curve, which includes both its ends: take 2 or more")
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).view(-1, 1, 1)
    return torch.lerp(a.expand(steps, *a.shape), b.expand(steps, *b.shape), t)


def slerp(
    a: Float[Tensor, "batch latent"], b: Float[Tensor, "batch latent"], steps: int
) -> Float[Tensor, "step batch latent"]:
    """Return points from a to b on an arc, whose norms lie between |a| and |b|: where N(0, I) has its mass.

    The directions are (sin((1 - t) w) a / |a| + sin(t w) b / |b|) / sin w, where w is the angle between a and b; the
    norms are interpolated linearly. The curve is a straight line if a and b point the same way, or in opposite
    directions, where no arc is better than another.

    Reference: White 2016, "Sampling Generative Networks", section 2.1.
    """
    straight = lerp(a, b, steps)
    t = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).view(-1, 1, 1)
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=-1).clamp(-1, 1).unsqueeze(-1)
    angle = cosine.acos()
    sine = angle.sin()
    near, far = (x.norm(dim=-1, keepdim=True) for x in (a, b))
    turned = ((1 - t) * angle).sin() / sine * a / near.clamp(min=1e-12) + (t * angle).sin() / sine * b / far.clamp(
        min=1e-12
    )
    curved = (near + t * (far - near)) * turned
    curved = torch.cat([a.unsqueeze(0), curved[1:-1], b.unsqueeze(0)])  # make the ends exact
    return torch.where(sine < 1e-3, straight, curved)


def curve_energy(surface: Surface, curve: Float[Tensor, "step batch latent"]) -> Float[Tensor, " batch"]:
    """Return the energy of the decoded curve, (T - 1) sum_t |g(z_{t+1}) - g(z_t)|^2 for T points.

    It is the discrete integral of z'(t)' J' J z'(t), the metric that the decoder g pulls back into the latent space. A
    curve of least energy is a shortest curve, traversed at constant speed.

    Reference: Arvanitidis et al. 2018, "Latent Space Oddity: on the Curvature of Deep Generative Models", section 2.
    """
    seen = surface(curve).flatten(2)
    return (len(curve) - 1) * seen.diff(dim=0).square().sum(-1).sum(0)


def geodesic(
    surface: Surface,
    a: Float[Tensor, "batch latent"],
    b: Float[Tensor, "batch latent"],
    steps: int,
    iterations: int = 100,
) -> Float[Tensor, "step batch latent"]:
    """Return a curve from a to b of (locally) least `curve_energy`, which never exceeds that of the straight line.

    L-BFGS moves the points between the ends, starting from the straight line.

    Args:
        surface: the decoder.
        a: start points of the curves.
        b: end points of the curves.
        steps: number of points of a curve, both ends included.
        iterations: number of iterations of L-BFGS.

    Reference: Arvanitidis et al. 2018, "Latent Space Oddity: on the Curvature of Deep Generative Models", section 2.
    """
    straight = lerp(a.detach(), b.detach(), steps)
    if steps == 2:
        return straight
    inner = straight[1:-1].clone().requires_grad_()
    optimiser = torch.optim.LBFGS([inner], max_iter=iterations, line_search_fn="strong_wolfe")

    def curve() -> Tensor:
        return torch.cat([straight[:1], inner, straight[-1:]])

    def closure() -> Tensor:
        energy = curve_energy(surface, curve()).sum()
        inner.grad = torch.autograd.grad(energy, inner)[0]
        return energy

    with torch.enable_grad():
        optimiser.step(closure)
    with torch.no_grad():
        found = curve()
        shorter = curve_energy(surface, found) <= curve_energy(surface, straight)
        return torch.where(shorter.unsqueeze(-1), found, straight)
