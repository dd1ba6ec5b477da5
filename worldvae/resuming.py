"""What of a run may change when it goes on: how long it lasts and how it learns, but not what it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from worldvae.config import load_config
from worldvae.errors import UserError

T = TypeVar("T")

FIXED = (
    "env",
    "model",
    "seed",
    "device",
    "train.prefill",
    "train.pretrain",
    "train.envs",
    "train.behaviour",
    "train.replay_bytes",
    "actor_critic.hidden",
    "actor_critic.layers",
    "actor_critic.bins",
    "actor_critic.gradient",
)
"""Settings (and whole sections) that were decided when a run began: shapes of its weights, its data and its seed."""

SCHEDULE = ("train.steps", "train.updates", "optimiser", "actor_critic.optimiser")
"""Settings on which the step size at the present step depends."""


def resumed_config(schema: type[T], source: Path, overrides: Sequence[str]) -> T:
    """Return the config of the run that was written to `source`, with `overrides` for the time to come.

    Raises:
        UserError: If one of them was decided when the run began, or does not exist or fit.
    """
    for override in overrides:
        key = override.partition("=")[0]
        if _among(key, FIXED) or key == "family" or any(name.startswith(f"{key}.") for name in FIXED):
            raise UserError(
                f"{override!r} was decided when the run in {source.parent} began, and cannot change any more: train a "
                "new run with it. A run that goes on takes train.steps=N (how long it lasts) and other settings of "
                "train, optimiser, objective, actor_critic and the planners."
            )
    return load_config(schema, [source], overrides)


def changes_schedule(override: str) -> bool:
    """Return whether an override changes the schedule of the step sizes."""
    return _among(override.partition("=")[0], SCHEDULE)


def _among(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)
