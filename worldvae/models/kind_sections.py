"""Config sections of the kinds of world models that are not the sequential VAE, one per kind, named after it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class JEPAConfig:
    """Numbers of `kind=jepa`."""


@dataclass(frozen=True)
class PixelDiffusionConfig:
    """Numbers of `kind=pixel_diffusion`."""


@dataclass(frozen=True)
class PixelEnergyConfig:
    """Numbers of `kind=pixel_energy`."""


READS: dict[str, frozenset[str]] = {
    "jepa": frozenset(),
    "pixel_diffusion": frozenset(),
    "pixel_energy": frozenset(),
}
"""The words of parts of the VAE that each of these kinds reads; others must keep their defaults."""
