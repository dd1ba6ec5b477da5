"""The rows of the study of model kinds: what each is, its settings, and the ranges in which it is tuned.

The ranges were written down before any of them was tried. Every row tries the same number of configurations.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from worldvae.errors import UserError, near_miss
from worldvae.seeds import stream

Imagines = Literal["latents", "pixels", "nothing"]


@dataclass(frozen=True)
class Between:
    """A setting drawn log-uniformly between two positive numbers."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> str:
        """Return a value, with three digits."""
        return f"{math.exp(rng.uniform(math.log(self.low), math.log(self.high))):.3g}"


@dataclass(frozen=True)
class OneOf:
    """A setting drawn uniformly from a few values."""

    values: tuple[str, ...]

    def draw(self, rng: np.random.Generator) -> str:
        """Return one of the values."""
        return self.values[int(rng.integers(len(self.values)))]


@dataclass(frozen=True)
class Row:
    """A row of the study.

    Attributes:
        name: word for `--rows`.
        inference: how the state is inferred: explicitly, implicitly, or not at all; a sentence.
        geometry: whether the geometry of its states is imposed, refused or learned; a sentence.
        integral: what replaces the integral over states that no one can compute; a sentence.
        overrides: settings on top of the task's.
        ranges: what tuning draws, by setting.
        imagines: what its states are: "latents", "pixels", or "nothing" if there is no model.
        dial: the settings that make it larger or smaller, with "{width}" for a number, and "{wider}" for one and a half
            of it; none: it cannot be dialled.
        planning: settings with which it plans, and which change no weight.
        pixels_only: whether it is another row's equal where there are no frames.
        control: whether it is expected to fail, and is there to show what failure looks like.
    """

    name: str
    inference: str
    geometry: str
    integral: str
    overrides: tuple[str, ...] = ()
    ranges: Mapping[str, Between | OneOf] = field(default_factory=dict)
    imagines: Imagines = "latents"
    dial: tuple[str, ...] = ()
    planning: tuple[str, ...] = ()
    pixels_only: bool = False
    control: bool = False

    @property
    def learns(self) -> bool:
        """Whether there is a model to train."""
        return self.imagines != "nothing"

    def candidates(self, number: int, seed: int = 0) -> list[tuple[str, ...]]:
        """Return the settings that tuning tries: none at first, which are the row's own, then random ones."""
        rng = np.random.default_rng(stream(seed, f"tuning {self.name}"))
        drawn = [tuple(f"{key}={spread.draw(rng)}" for key, spread in self.ranges.items()) for _ in range(number - 1)]
        return [(), *drawn]


_RATE = {"optimiser.learning_rate": Between(3e-4, 3e-3)}
_KL = {"objective.free_nats": OneOf(("0.3", "1", "3")), "objective.representation": OneOf(("0.3", "1"))}
_HIDDEN = ("model.hidden={width}",)
_EXPLICIT = "Explicit: a network returns the density q(z | h, x) in one pass."
_ELBO = "A lower bound replaces it: one sample of q, and a KL."


def _vae(name: str, family: str, geometry: str, integral: str = _ELBO, pixels_only: bool = False) -> Row:
    dial = () if name == "vae" else _HIDDEN
    return Row(
        name, _EXPLICIT, geometry, integral, (f"family={family}",), {**_RATE, **_KL}, dial=dial, pixels_only=pixels_only
    )


def _jepa(name: str, geometry: str, *overrides: str, control: bool = False) -> Row:
    return Row(
        name,
        "Implicit: an encoder returns a point, and no density.",
        geometry,
        "Nothing replaces it: there is no likelihood, and predictions are compared with encodings.",
        ("model.kind=jepa", *overrides),
        {**_RATE, "model.jepa.rollout": OneOf(("4", "6", "8"))},
        dial=_HIDDEN,
        control=control,
    )


def _pixels(name: str, kind: str, integral: str, *overrides: str, control: bool = False) -> Row:
    return Row(
        name,
        "None: the state is the last frames.",
        "Refused: frames are all there is.",
        integral,
        (f"model.kind={kind}", *overrides),
        {**_RATE, f"model.{kind}.context_noise": OneOf(("0", "0.05", "0.1"))},
        imagines="pixels",
        dial=(f"model.{kind}.widths=[{{width}},{{wider}}]",),
        planning=(f"model.{kind}.steps=1",),
        control=control,
    )


_NOTHING = "There is no model."

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        _vae("vae", "rssm", "Imposed: a KL pulls q towards a Gaussian that depends on the past."),
        _vae("vae_categorical", "dreamer", "Imposed: a KL pulls q towards categoricals that depend on the past."),
        _vae("mdn_rnn", "mdn_rnn", "Imposed: N(0, I) for single frames; then a mixture learns how they follow."),
        _vae("latent_flow", "latent_flow_matching", "Learned: a flow moves noise to z, whatever shape z has."),
        _vae(
            "latent_diffusion",
            "latent_diffusion",
            "Imposed: N(0, I) for single frames; then a diffusion learns how they follow.",
            "Many small denoising steps replace it, each a regression.",
        ),
        _vae(
            "vae_diffusion_decoder",
            "diffusion_decoder",
            "Imposed: as in vae; the detail of a frame is a diffusion given z.",
            "A lower bound for z, and denoising steps for the detail.",
            pixels_only=True,
        ),
        _jepa("jepa_sigreg", "Imposed: random projections of z are pulled towards N(0, 1), as hard as by a KL."),
        _jepa(
            "jepa_vicreg",
            "Refused: only variances are held up and correlations down.",
            "model.jepa.regulariser=vicreg",
        ),
        _jepa("jepa_none", "Refused: nothing holds z up.", "model.jepa.regulariser=none", control=True),
        _jepa("jepa_random", "Drawn: the encoder is never trained.", "model.jepa.frozen_encoder=true", control=True),
        _pixels(
            "pixel_diffusion",
            "pixel_diffusion",
            "Denoising steps replace it: a hierarchy of latents whose encoder, adding noise, is fixed.",
        ),
        _pixels(
            "pixel_energy",
            "pixel_energy",
            "Score matching avoids it: the normalising constant drops out of the gradient of an energy.",
        ),
        _pixels(
            "pixel_energy_contrastive",
            "pixel_energy",
            "Langevin chains estimate the gradient of the normalising constant.",
            "model.pixel_energy.training=contrastive",
            "model.pixel_energy.sampler=langevin",
            control=True,
        ),
        Row("oracle", "None needed: the true state is given.", "The world's own.", _NOTHING, imagines="nothing"),
        Row("copy_last", "None: the last row is repeated.", _NOTHING, _NOTHING, imagines="nothing"),
        Row("random", "None: actions are uniform.", _NOTHING, _NOTHING, imagines="nothing"),
    )
}
"""Every row of the study by its name; the first is the one whose size the others have."""

REFERENCE = "vae"
"""The row whose number of parameters the others are dialled to."""


def rows_of(given: tuple[str, ...] = ()) -> list[Row]:
    """Return the rows called `given`, or all.

    Raises:
        UserError: If there is no such row.
    """
    for name in given:
        if name not in ROWS:
            raise UserError(f"--rows: {name!r} is not a row: {', '.join(ROWS)}.{near_miss(name, ROWS)}")
    return [ROWS[name] for name in dict.fromkeys(given)] or list(ROWS.values())
