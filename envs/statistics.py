"""Running statistics inside an environment: its observations then depend on all earlier ones."""

from collections.abc import Iterator
from typing import Any

import gymnasium as gym

from worldvae.errors import UserError

WRAPPERS = {"NormalizeObservation", "NormalizeReward"}
STATISTICS = {"RunningMeanStd", "RunningStat", "MeanStdFilter"}
"""Classes, by name: those of Gymnasium, and their copies in other libraries."""


def refuse_statistics(env: gym.Env[Any, Any], id: str) -> None:
    """Raise if a layer of `env` scales observations or rewards by statistics that it goes on collecting.

    Each instance begins with none: the same state would look and pay differently in training, in each evaluation and
    in each film, and a run that is resumed would not go on where it stopped. Statistics that are kept as they are
    (`update_running_mean = False`) do no harm.

    Raises:
        UserError: If one does.
    """
    for layer in _layers(env):
        names = {kind.__name__ for kind in type(layer).__mro__}
        held = {type(value).__name__ for value in _attributes(layer)}
        if (names & WRAPPERS or held & STATISTICS) and getattr(layer, "update_running_mean", True):
            raise UserError(
                f"{id} contains {type(layer).__name__}, which scales by running statistics that every instance "
                "collects anew, so that training and evaluations would see different worlds: leave it out (the world "
                "model standardises observations and rewards by itself), or load fixed statistics and set its "
                "update_running_mean to False."
            )


def _layers(env: gym.Env[Any, Any]) -> Iterator[gym.Env[Any, Any]]:
    """Yield `env` and every environment that it holds, wrapped or as an attribute."""
    found, waiting = set(), [env]
    while waiting:
        layer = waiting.pop()
        if id(layer) not in found:
            found.add(id(layer))
            yield layer
            waiting.extend(value for value in _attributes(layer) if isinstance(value, gym.Env))


def _attributes(layer: gym.Env[Any, Any]) -> list[Any]:
    return list(getattr(layer, "__dict__", {}).values())
