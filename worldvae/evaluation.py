"""Plays whole episodes with an agent and says how it did, with an interval."""

import time
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from worldvae.agents import Agent, Carry, RandomAgent
from worldvae.collector import HELD_OUT, episode_seed
from worldvae.dream import OpenLoop, open_loop
from worldvae.envs import EnvConfig, EnvPool
from worldvae.errors import UserError
from worldvae.run import Run
from worldvae.seeds import check_seed
from worldvae.types import Batch, Observation

SIDE_BY_SIDE = 32


@dataclass(frozen=True)
class Episodes:
    """Episodes played side by side.

    Attributes:
        returns: sum of rewards, per episode.
        lengths: decisions, per episode; the episode has one row more.
        rows: `[episode, time]` of the longest episode; what lies behind the end of a shorter one is filler.
    """

    returns: Float[torch.Tensor, " episode"]
    lengths: Int[torch.Tensor, " episode"]
    rows: Batch | None


def play(
    agent: Agent,
    env: EnvConfig,
    episodes: int,
    seed: int = 0,
    *,
    explore: bool = False,
    limit: int | None = None,
    keep_rows: bool = False,
) -> Episodes:
    """Play held-out episodes, whose seeds no training episode has.

    Args:
        agent: what acts; agents given the same seed meet the same episodes.
        env: the environment.
        episodes: how many.
        seed: of the episodes and of the agent's randomness.
        explore: whether the agent acts to learn.
        limit: stop after so many decisions.
        keep_rows: whether to return every row.

    Raises:
        UserError: If the environment fails, or the seed is negative.
    """
    check_seed(seed)
    generator = torch.Generator(agent.device).manual_seed(seed)
    with EnvPool([env] * episodes) as pool:
        observation = pool.reset([episode_seed(seed, HELD_OUT, i) for i in range(episodes)])
        active = torch.ones(episodes, dtype=torch.bool)
        returns, lengths = torch.zeros(episodes), torch.zeros(episodes, dtype=torch.int64)
        is_first, carry, rows = active.clone(), None, []
        reward, termination = torch.zeros(episodes), torch.zeros(episodes, dtype=torch.bool)
        for decisions in count():
            action, carry = agent.act(observation, is_first, carry, generator, explore)
            action = action.cpu()
            if keep_rows:
                rows.append(Batch(observation, action, reward, termination, is_first))
            if not bool(active.any()) or decisions == limit:
                break
            step = pool.step(action, active)
            returns, lengths = returns + step.reward, lengths + active
            observation, reward, termination = step.observation, step.reward, step.terminated
            active = active & ~step.done
            is_first = torch.zeros_like(is_first)
    return Episodes(returns, lengths, Batch.stack(rows, dim=1) if keep_rows else None)


@dataclass(frozen=True)
class Evaluation:
    """How an agent did; `as_json` is the contract of `worldvae eval --json`."""

    env_id: str
    agent: str
    seed: int
    returns: list[float]
    random_mean: float
    decisions_per_second: float

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def ci95(self) -> tuple[float, float]:
        """95 % bootstrap interval of the mean (10 000 resamples, seeded)."""
        rng = np.random.default_rng(0)
        returns = np.asarray(self.returns)
        means = rng.choice(returns, (10_000, len(returns))).mean(axis=1)
        return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return {
            "env_id": self.env_id,
            "agent": self.agent,
            "episodes": len(self.returns),
            "seed": self.seed,
            "returns": self.returns,
            "mean": self.mean,
            "ci95": list(self.ci95),
            "random_mean": self.random_mean,
            "decisions_per_second": self.decisions_per_second,
        }


def evaluate(agent: Agent, env: EnvConfig, episodes: int, seed: int = 0) -> Evaluation:
    """Play episodes with an agent, and the same ones with uniform actions.

    Raises:
        UserError: If the environment fails.
    """
    start, decisions = time.perf_counter(), 0
    returns: list[float] = []
    for played in _in_parts(agent, env, episodes, seed):
        returns += played.returns.tolist()
        decisions += int(played.lengths.sum())
    seconds = time.perf_counter() - start
    if isinstance(agent, RandomAgent):
        floor = returns
    else:
        with EnvPool([env]) as pool:
            uniform = RandomAgent(pool.action_layout)
        floor = [value for part in _in_parts(uniform, env, episodes, seed) for value in part.returns.tolist()]
    return Evaluation(env.id, agent.name, seed, returns, float(np.mean(floor)), decisions / seconds)


def _in_parts(agent: Agent, env: EnvConfig, episodes: int, seed: int, *, keep_rows: bool = False) -> list[Episodes]:
    """Play at most `SIDE_BY_SIDE` episodes at a time; the first part keeps `seed`, the others have their own."""
    sizes = [min(SIDE_BY_SIDE, episodes - done) for done in range(0, episodes, SIDE_BY_SIDE)]
    seeds = [seed, *(episode_seed(seed, HELD_OUT + part, 0) for part in range(1, len(sizes)))]
    return [play(agent, env, size, one, keep_rows=keep_rows) for size, one in zip(sizes, seeds, strict=True)]


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
    parts = _in_parts(agent, env, episodes, seed, keep_rows=True)
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
    played = play(run.agent, run.config.env, episodes, seed, explore=True, limit=length - 1, keep_rows=True)
    assert played.rows is not None
    return _padded(played.rows, length), played.lengths


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
