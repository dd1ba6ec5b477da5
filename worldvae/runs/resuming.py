"""The settings that may change when a run is resumed: its length and how it learns, not its environment or model."""

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from worldvae.config import load_config
from worldvae.errors import UserError
from worldvae.runs.settings import RunConfig

FIXED_SETTINGS = (
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
"""Settings (and whole sections) that cannot change: shapes of the weights, the data and the seed."""


def resumed_config(source: Path, overrides: Sequence[str], steps: int, updates: int) -> RunConfig:
    """Return the config of a run with `overrides`, for its training from now on.

    Args:
        source: the run's config.yaml.
        overrides: settings as `train.steps=20000`.
        steps: environment steps that the run has taken.
        updates: updates that the run has made.

    Raises:
        UserError: If a setting cannot change any more, does not exist or fit, or asks for less than the run has done.
    """
    before = load_config(RunConfig, [source])
    if not overrides:
        return before
    known = [override for override in overrides if not override.startswith("family=")]
    after = load_config(RunConfig, [source], known)
    changed = [name for name in FIXED_SETTINGS if _at(before, name) != _at(after, name)]
    if changed or len(known) < len(overrides):
        raise UserError(
            f"{changed[0] if changed else 'family'} was decided when the run in {source.parent} began, and cannot "
            "change any more: train a new run with it. A run that goes on takes train.steps=N (how long it lasts) and "
            "other settings of train, optimiser, objective, actor_critic and the planners."
        )
    for name, done in (("train.steps", steps), ("train.updates", updates)):
        number = _at(after, name)
        if number != _at(before, name) and 0 < number < done:
            raise UserError(
                f"{name}={number} is less than the {done} that the run in {source.parent} has done already: give more, "
                "to train it further."
            )
    return after


def _at(config: RunConfig, name: str) -> Any:
    return reduce(getattr, name.split("."), config)
