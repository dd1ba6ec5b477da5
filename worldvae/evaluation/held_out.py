"""Held-out episodes with every row: what dreams and diagnoses are measured on."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int

from worldvae.agents import Agent, Carry
from worldvae.envs import EnvPool
from worldvae.errors import UserError
from worldvae.evaluation.play import PROCESSES, in_parts, play
from worldvae.films.open_loop import OpenLoop, open_loop
from worldvae.runs.run import Run
from worldvae.types import Batch, Observation


class _Blindfold(Agent):
    """An agent that is shown no vector, although the environment shows one."""

    def __init__(self, agent: Agent) -> None:
        self.agent, self.name = agent, agent.name

    @property
    def device(self) -> torch.device:
        """That of the agent."""
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
class Witnessed:
    """Episodes and, where the environment has a vector, that vector for every row."""

    rows: Batch
    valid: Bool[torch.Tensor, "episode time"]
    truth: Float[torch.Tensor, "episode time state"] | None


def witness(run: Run, agent: Agent, episodes: int, seed: int = 0) -> Witnessed:
    """Play held-out episodes and keep their rows; of a world that is shown as frames, its vector beside them.

    Raises:
        UserError: If the environment fails.
    """
    env, blind = run.config.env, run.model.observation_layout.vector is None
    if blind:
        try:
            with EnvPool([replace(env, obs="both")]):
                env, agent = replace(env, obs="both"), _Blindfold(agent)
        except UserError:  # it has no vector
            blind = False
    parts = in_parts(agent, env, episodes, seed, keep_rows=True)
    longest = max(part.rows.reward.shape[1] for part in parts if part.rows is not None)
    rows = Batch.cat([_padded(part.rows, longest) for part in parts if part.rows is not None], dim=0)
    truth = rows.observation.vector
    if blind:
        rows = replace(rows, observation=Observation(pixels=rows.observation.pixels))
    valid = torch.arange(longest) <= torch.cat([part.lengths for part in parts]).unsqueeze(1)
    return Witnessed(rows, valid, truth)


def held_out_rows(run: Run, length: int, episodes: int, seed: int = 0) -> tuple[Batch, Int[torch.Tensor, " episode"]]:
    """Play the beginning of held-out episodes with the exploring actor.

    Args:
        run: whose actor plays.
        length: rows of each episode; the last one of an episode that ended sooner is repeated.
        episodes: how many.
        seed: of the episodes.

    Returns:
        The rows, `[episode, length]`, and the decisions of each episode: row t exists for t <= decisions.

    Raises:
        UserError: If the environment fails.
    """
    env = run.config.env
    together = min(PROCESSES, episodes) if env.alone else episodes
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
    With `render`, frames are rendered in so many strides, too.

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
