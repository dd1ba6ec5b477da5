"""Config sections of the kinds of world models that are not the sequential VAE, one per kind, named after it."""

import math
from dataclasses import dataclass

from worldvae.config import setting


@dataclass(frozen=True)
class JEPAConfig:
    """Numbers of `kind=jepa`.

    Attributes:
        latent: length of z.
        stack: frames that are encoded together: a single one shows no velocity. (Vectors are not stacked.)
        predictor: "residual", z' = z + mlp(z, a); or "gru", which has a memory of `model.memory_size`, for worlds of
            which an observation shows only a part.
        rollout: steps that are predicted in the loss, from every row.
        regulariser: what keeps z from collapsing: "sigreg" (z is distributed as N(0, I)), "vicreg" (its entries are
            spread and uncorrelated, and two of them tell the action between), or "none", a control that collapses.
        sigreg: weight of the statistic of `objectives.sigreg`, which grows with the number of rows if z is not normal.
        directions: projections on which that is computed, drawn anew for each batch.
        knots: points of its integral.
        std: weight of `objectives.vicreg.std_hinge`.
        covariance: weight of `objectives.vicreg.squared_covariance`.
        inverse: weight of `objectives.vicreg.inverse_error`.
        frozen_encoder: whether the encoder stays as it was drawn: a control.
        decoder: whether a decoder of observations learns from z, so that dreams can be shown; z does not learn from it.
    """

    latent: int = 32
    stack: int = 2
    predictor: str = setting("residual", choices=["residual", "gru"])
    rollout: int = 6
    regulariser: str = setting("sigreg", choices=["sigreg", "vicreg", "none"])
    sigreg: float = 0.09
    directions: int = 128
    knots: int = 17
    std: float = 1.6
    covariance: float = 0.8
    inverse: float = 1.0
    frozen_encoder: bool = False
    decoder: bool = True

    def __post_init__(self) -> None:
        for name, least in (("latent", 1), ("stack", 1), ("rollout", 1), ("directions", 1), ("knots", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"jepa.{name}={getattr(self, name)} is too small: take at least {least}")
        for name in ("sigreg", "std", "covariance", "inverse"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"jepa.{name}={getattr(self, name)} is a weight: take a finite number from 0 on")
        accepted = {"predictor": ("residual", "gru"), "regulariser": ("sigreg", "vicreg", "none")}
        for name, words in accepted.items():
            if getattr(self, name) not in words:
                raise ValueError(f"jepa.{name}={getattr(self, name)} is not accepted: take one of {', '.join(words)}")


@dataclass(frozen=True)
class PixelDiffusionConfig:
    """Numbers of `kind=pixel_diffusion`."""


@dataclass(frozen=True)
class PixelEnergyConfig:
    """Numbers of `kind=pixel_energy`."""


READS: dict[str, frozenset[str]] = {
    "jepa": frozenset({"frames"}),
    "pixel_diffusion": frozenset(),
    "pixel_energy": frozenset(),
}
"""The words of parts of the VAE that each of these kinds reads; others must keep their defaults."""
