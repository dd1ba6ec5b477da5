"""Held-out episodes with every row: the data on which dreams and diagnoses are measured."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int

from worldvae.agents import Agent, Carry
from worldvae.envs import EnvPool
from worldvae.errors import UserError
from worldvae.evaluation.play import PARALLEL_PROCESSES, in_parts, play
from worldvae.films.open_loop import OpenLoop, open_loop
from worldvae.runs.run import Run
from worldvae.types import Batch, Observation


class _FramesOnly(Agent):
    """Hides the vector of an observation from an agent, and shows it the frame alone."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.name = agent, agent.name

    @property
    def device(self) -> torch.device:
        """The agent's device."""
        return self.agent.device

    def act(
        self,
        observation: Observation,
        is_first: Bool[torch.Tensor, "batch"],
        carry: Carry | None,
        generator: torch.Generator | None = None,
        explore: bool = False,
    ) -> tuple[Float[torch.Tensor, "batch action"], Carry | None]:
        """Act on the frames alone."""
        return self.agent.act(Observation(pixels=observation.pixels), is_first, carry, generator, explore)


@dataclass(frozen=True)
class HeldOut:
    """Held-out episodes.

    Attributes:
        rows: what the model sees; shorter episodes repeat their last row.
        valid: which rows an episode has.
        vector: what the environment shows as a vector in every row, also if the model sees frames alone; None if the
            environment has no vector.
    """

    rows: Batch
    valid: Bool[torch.Tensor, "episode time"]
    vector: Float[torch.Tensor, "episode time state"] | None


def held_out_episodes(run: Run, agent: Agent, episodes: int, seed: int = 0) -> HeldOut:
    """Play held-out episodes and return all their rows, and the environment's vector of each row.

    Raises:
        UserError: If the environment fails.
    """
    env, frames_only = run.config.env, run.model.observation_layout.vector is None
    if frames_only:
        try:
            with EnvPool([replace(env, obs="both")]):
                env, agent = replace(env, obs="both"), _FramesOnly(agent)
        except UserError:  # the environment has no vector
            frames_only = False
    parts = in_parts(agent, env, episodes, seed, keep_rows=True)
    longest = max(part.rows.reward.shape[1] for part in parts if part.rows is not None)
    rows = Batch.cat([_padded(part.rows, longest) for part in parts if part.rows is not None], dim=0)
    vector = rows.observation.vector
    if frames_only:
        rows = replace(rows, observation=Observation(pixels=rows.observation.pixels))
    valid = torch.arange(longest) <= torch.cat([part.lengths for part in parts]).unsqueeze(1)
    return HeldOut(rows, valid, vector)


def held_out_rows(run: Run, length: int, episodes: int, seed: int = 0) -> tuple[Batch, Int[torch.Tensor, " episode"]]:
    """Play the beginning of held-out episodes with the exploring actor.

    Args:
        run: the run whose actor plays.
        length: rows of each episode; shorter episodes repeat their last row.
        episodes: number of episodes.
        seed: of the episodes.

    Returns:
        The rows, `[episode, length]`, and the decisions of each episode: row t exists for t <= decisions.

    Raises:
        UserError: If the environment fails.
    """
    env = run.config.env
    together = min(PARALLEL_PROCESSES, episodes) if env.alone else episodes
    parts = [
        play(
            run.agent, env, min(together, episodes - first), seed,
            explore=True, limit=length - 1, keep_rows=True, first=first,
        )
        for first in range(0, episodes, together)
    ]  # fmt: skip
    rows = Batch.cat([_padded(part.rows, length) for part in parts if part.rows is not None], dim=0)
    return rows, torch.cat([part.lengths for part in parts])


def held_out_dream(run: Run, context: int, horizon: int, episodes: int, seed: int = 0, render: int = 0) -> OpenLoop:
    """Play held-out episodes with the exploring actor, show the model their first rows and let it dream the rest.

    Episodes that end sooner count as far as they go, and the dream is no longer than the longest of them.
    With `render`, a diffusion decoder also renders frames, in that number of strides.

    Raises:
        UserError: If the environment fails.
    """
    rows, lengths = held_out_rows(run, context + horizon, episodes, seed)
    horizon = max(1, min(horizon, int(lengths.max()) + 1 - context))
    return open_loop(run.model, rows[:, : context + horizon], lengths, context, horizon, render, seed)


def _padded(rows: Batch, length: int) -> Batch:
    """Repeat the last row until there are `length` of them."""
    missing = length - rows.reward.shape[1]
    return Batch.cat([rows, *[rows[:, -1:]] * missing], dim=1)
