"""Kinds of world models: the word `model.kind` of a config, and what makes the model."""

from collections.abc import Callable

from worldvae.errors import near_miss
from worldvae.models.parts import WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.models.world_model import WorldModel
from worldvae.objectives import ELBOConfig
from worldvae.types import ActionLayout, ObservationLayout

Maker = Callable[[ObservationLayout, ActionLayout, WorldModelConfig, ELBOConfig | None], WorldModel]
"""Builds an untrained world model: a torch module that does what `WorldModel` says."""

KINDS: dict[str, Maker] = {"sequential_vae": SequentialVAE}


def register(name: str, maker: Maker) -> None:
    """Make `model.kind=name` a choice.

    Raises:
        ValueError: If there is a kind of that name.
    """
    if name in KINDS:
        raise ValueError(f"there is a kind of world model called {name} already: take another name")
    KINDS[name] = maker


def check_kind(name: str) -> None:
    """Raise unless there is such a kind of world model.

    Raises:
        ValueError: If there is none.
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
        ValueError: If there is no such kind, or it cannot be built from `config`.
    """
    check_kind(config.kind)
    return KINDS[config.kind](observation, action, config, objective)
