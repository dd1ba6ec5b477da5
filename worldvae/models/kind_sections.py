"""Config sections of the kinds of world models that are not the sequential VAE, one per kind, named after it."""

import math
from dataclasses import dataclass, field

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
class NextFrameConfig:
    """Numbers that both kinds share whose state is the last frames. Amplitudes are those of frames in [-1, 1].

    Attributes:
        context: last frames, and actions, from which the next frame is predicted.
        steps: denoising steps of an imagined frame, each of which costs one pass of the network (Heun: two).
        sigma_min: noise at which denoising ends.
        sigma_max: noise at which it begins. It has to hide a whole frame: a thin rod, twelve times the measured
            standard deviation, is still legible at ten of them.
        log_sigma_mean: mean of the logarithm of the noise on which the network trains.
        log_sigma_std: its standard deviation.
        context_noise: largest noise on the context in training, whose level the network is told: it learns to continue
            frames that are not perfect, such as its own.
        widths: channels of the U-Net's maps from the finest to the coarsest, each half as large as the one before. For
            vectors, the first is the width of the perceptron.
        average: decay per update of the moving average of the weights, which imagines.
        frames: frames of a batch on which the network trains; others train only reward and continuation.
        generated: share of these frames that are also imagined, so that reward and continuation learn on such frames.
    """

    context: int = 4
    steps: int = 3
    sigma_min: float = 2e-3
    sigma_max: float = 5.0
    log_sigma_mean: float = -0.4
    log_sigma_std: float = 1.2
    context_noise: float = 0.05
    widths: tuple[int, ...] = (64, 96)
    average: float = 0.995
    frames: int = 16
    generated: float = 0.25

    def __post_init__(self) -> None:
        for name in ("context", "steps", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            raise ValueError(
                f"sigma_min={self.sigma_min} and sigma_max={self.sigma_max}: take 0 < sigma_min < sigma_max"
            )
        if not (math.isfinite(self.log_sigma_mean) and 0 < self.log_sigma_std < math.inf):
            raise ValueError(
                f"log_sigma_mean={self.log_sigma_mean} and log_sigma_std={self.log_sigma_std}: take finite numbers, "
                "and a standard deviation above 0"
            )
        if not 0 <= self.context_noise < math.inf:
            raise ValueError(f"context_noise={self.context_noise} must be 0 or above, and finite")
        if not self.widths or any(width < 1 for width in self.widths):
            raise ValueError(
                f"widths={list(self.widths)} must be numbers of channels, each at least 1, such as [64,96]"
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"average={self.average} is not a decay: take 0 (no average) or more, below 1")
        if not 0 <= self.generated <= 1:
            raise ValueError(f"generated={self.generated} is not a share: take a number from 0 to 1")


@dataclass(frozen=True)
class PixelDiffusionConfig(NextFrameConfig):
    """Numbers of `kind=pixel_diffusion`; see `NextFrameConfig` for most of them.

    Attributes:
        sampler: how the probability-flow equation is solved.
    """

    sampler: str = setting("euler", choices=["euler", "heun"])


@dataclass(frozen=True)
class ContrastiveConfig:
    """Numbers of `kind=pixel_energy` with `training=contrastive` (the recovery likelihood).

    Attributes:
        levels: noise levels, from each of which a chain leads to the next finer one.
        sigma_min: noise at the finest level.
        steps: Langevin steps of a chain; each costs a gradient of the energy.
        step: size of a step in units of the noise that the chain removes.
        start: where chains of training begin: at the "noisier" frame, or at the "last" observed one (such chains may
            diverge where the noise is small).
    """

    levels: int = 6
    sigma_min: float = 0.05
    steps: int = 30
    step: float = 0.4
    start: str = setting("noisier", choices=["noisier", "last"])

    def __post_init__(self) -> None:
        for name in ("levels", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if not 0 < self.sigma_min < math.inf:
            raise ValueError(f"sigma_min={self.sigma_min} must be above 0 and finite")
        if not 0 < self.step < 2:
            raise ValueError(f"step={self.step} must be above 0 and below 2, beyond which a chain diverges")


@dataclass(frozen=True)
class PixelEnergyConfig(NextFrameConfig):
    """Numbers of `kind=pixel_energy`; see `NextFrameConfig` for most of them.

    Attributes:
        training: "score" fits the energy's gradient to the noise (as in a diffusion), "contrastive" lowers the energy
            of frames and raises that of the ends of Langevin chains.
        sampler: "euler" and "heun" as in a diffusion; "langevin" is a chain at each of the `steps` noise levels.
            Contrastive training has energies at its own levels only, and needs "langevin".
        langevin_steps: steps of the chain at each noise level (`training=score`).
        langevin_step: size of these steps in units of sigma.
        contrastive: section of training=contrastive.
    """

    training: str = setting("score", choices=["score", "contrastive"])
    sampler: str = setting("euler", choices=["euler", "heun", "langevin"])
    langevin_steps: int = 5
    langevin_step: float = 1.0
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.training == "contrastive" and self.sampler != "langevin":
            raise ValueError(
                f"training=contrastive cannot be sampled with sampler={self.sampler}: its energies are for Langevin "
                "chains between its own noise levels; give sampler=langevin"
            )
        if self.training == "contrastive" and self.contrastive.sigma_min >= self.sigma_max:
            raise ValueError(
                f"contrastive.sigma_min={self.contrastive.sigma_min} must be below sigma_max={self.sigma_max}"
            )
        if self.training == "score" and self.contrastive != ContrastiveConfig():
            raise ValueError(
                "contrastive has settings, and training=score does not read them: give training=contrastive"
            )
        if self.langevin_steps < 1:
            raise ValueError(f"langevin_steps={self.langevin_steps} must be at least 1")
        if not 0 < self.langevin_step < 2:
            raise ValueError(f"langevin_step={self.langevin_step} must be above 0 and below 2")


READS: dict[str, frozenset[str]] = {
    "jepa": frozenset({"frames"}),
    "pixel_diffusion": frozenset(),
    "pixel_energy": frozenset(),
}
"""The words of parts of the VAE that each of these kinds reads; others must keep their defaults."""
