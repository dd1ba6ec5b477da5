"""Which latents carry information, and whether the posterior has collapsed onto the prior."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.distributions import kl_divergence as torch_kl

from worldvae.distributions import FlatOneHot

ACTIVE_VARIANCE = 1e-2
"""A latent is active if its posterior mean has a variance over the data above this."""


def kl_per_dimension(q: Distribution, p: Distribution) -> Float[Tensor, "*batch unit"] | None:
    """Return KL(q || p) of every unit of z in nats: of each dimension of a Gaussian, of each group of a categorical.

    The result is None unless both factorise over units of the same kind: otherwise only the total KL is defined.
    """
    if isinstance(q, FlatOneHot) and isinstance(p, FlatOneHot):
        return torch_kl(q.base.base_dist, p.base.base_dist)
    normal = all(isinstance(d, Independent) and isinstance(d.base_dist, Normal) for d in (q, p))
    return torch_kl(q.base_dist, p.base_dist) if normal else None  # type: ignore[attr-defined]


def active_units(means: Float[Tensor, "row unit"], threshold: float = ACTIVE_VARIANCE) -> Bool[Tensor, " unit"]:
    """Return which units carry information: Var_x(E_q[z_d | x]) > threshold.

    Reference: Burda et al. 2016, "Importance Weighted Autoencoders", section 5.2.
    """
    return means.var(dim=0, correction=0) > threshold


@dataclass(frozen=True)
class Collapse:
    """The result of `collapse`.

    Attributes:
        verdict: "healthy", "partly collapsed" (fewer than half of the units are active) or "collapsed" (no unit is
            active, or the KL of the whole z is below a tenth of a nat).
        active: share of the units that are active.
        kl: KL of posterior and prior in nats per row.
    """

    verdict: str
    active: float
    kl: float


def collapse(means: Float[Tensor, "row unit"], kl: Float[Tensor, " row"]) -> Collapse:
    """Decide whether the posterior has collapsed, from its means and its KL to the prior.

    Reference: Lucas et al. 2019, "Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse".
    """
    active, nats = float(active_units(means).float().mean()), float(kl.mean())
    if active == 0 or nats < 0.1:
        return Collapse("collapsed", active, nats)
    return Collapse("healthy" if active >= 0.5 else "partly collapsed", active, nats)
