"""The kinds of world models: which class each word of `model.kind` builds."""

from collections.abc import Callable

from worldvae.errors import near_miss
from worldvae.models.jepa import JEPA
from worldvae.models.parts import WorldModelConfig
from worldvae.models.pixel_diffusion import PixelDiffusion
from worldvae.models.pixel_energy import PixelEnergy
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.models.world_model import WorldModel
from worldvae.objectives import ELBOConfig
from worldvae.types import ActionLayout, ObservationLayout

Maker = Callable[[ObservationLayout, ActionLayout, WorldModelConfig, ELBOConfig | None], WorldModel]
"""Builds an untrained world model: a torch module that implements the protocol `WorldModel`."""

KINDS: dict[str, Maker] = {
    "sequential_vae": SequentialVAE,
    "jepa": JEPA,
    "pixel_diffusion": PixelDiffusion,
    "pixel_energy": PixelEnergy,
}


def register(name: str, maker: Maker) -> None:
    """Make `model.kind=name` a choice.

    Raises:
        ValueError: If a kind of that name exists already.
    """
    if name in KINDS:
        raise ValueError(f"a kind of world model called {name} exists already: take another name")
    KINDS[name] = maker


def check_kind(name: str) -> None:
    """Check that a kind of world model has this name.

    Raises:
        ValueError: If none has.
    """
    if name not in KINDS:
        raise ValueError(f"model.kind is {name!r}, accepted: {', '.join(KINDS)}.{near_miss(name, KINDS)}")


def new_model(
    observation: ObservationLayout,
    action: ActionLayout,
    config: WorldModelConfig,
    objective: ELBOConfig | None = None,
) -> WorldModel:
    """Return the untrained world model of a run, of the kind `config.kind`.

    Raises:
        ValueError: If no kind has that name, or the model cannot be built from `config`.
    """
    check_kind(config.kind)
    return KINDS[config.kind](observation, action, config, objective)
