"""What the study takes from elsewhere: recorded episodes, the oracle's agent, and the verdict; one call site each."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from worldvae.agents import Agent
from worldvae.envs import EnvConfig
from worldvae.planning import PlanConfig
from worldvae.types import Batch

Split = Literal["validation", "test"]
HeldOutRows = tuple[Batch, Int[Tensor, " episode"], Float[Tensor, "episode time state"] | None]
"""Rows `[episode, time]`, decisions of each episode (row t exists for t <= decisions), and true states."""


@runtime_checkable
class RecordedEpisodes(Protocol):
    """Recorded episodes of one task, the same for every row."""

    @property
    def digest(self) -> str:
        """A hash of all bytes."""
        ...

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Batch:
        """Return `batch` slices of `length` rows of training episodes."""
        ...

    def held_out(self, split: Split) -> HeldOutRows:
        """Return whole episodes that no training sees."""
        ...


def open_recorded(env: EnvConfig, episodes: int, folder: Path, seed: int = 0) -> RecordedEpisodes:
    """Return the episodes that lie in `folder`; if there are none, record them and save them there.

    Raises:
        UserError: If the environment fails, or what lies there is damaged.
    """
    recorded = importlib.import_module("worldvae.studies.recorded")
    if folder.exists():
        return cast(RecordedEpisodes, recorded.Recorded.load(folder))
    found = recorded.record_episodes(env, episodes, seed)
    found.save(folder)
    return cast(RecordedEpisodes, found)


def oracle_agent(env: EnvConfig, planner: PlanConfig) -> tuple[Agent, EnvConfig]:
    """Return the agent that plans with the world itself from its true state, and the environment that shows it.

    Raises:
        UserError: If the world is not one of those that can be copied.
    """
    oracles = importlib.import_module("worldvae.studies.oracle")
    kwargs = env.kwargs | ({"full_state": True} if env.id == "worldvae/LinearGaussian-v0" else {})
    shown = replace(env, obs="state", kwargs=kwargs)
    return oracles.TruePlanner(oracles.oracle(shown), planner), shown


def give_verdict(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the sentence that the study ends with, from all its cells."""
    try:
        verdicts = importlib.import_module("worldvae.studies.verdict")
    except ModuleNotFoundError:
        done = sum(cell.get("failed") is None for cell in cells)
        return f"{done} of {len(cells)} cells are measured; no rule turns them into a verdict yet."
    return str(verdicts.verdict(cells))
