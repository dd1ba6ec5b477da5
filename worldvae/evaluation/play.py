"""Plays the same whole episodes with several agents: returns, with intervals, and speed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from worldvae.agents import Agent, Carry, RandomAgent
from worldvae.envs import EnvConfig, EnvPool
from worldvae.planning import PlanConfig
from worldvae.seeds import HELD_OUT, check_seed, episode_seed, stream
from worldvae.types import Batch

PARALLEL_EPISODES = 32
"""Episodes that one process plays side by side."""

PARALLEL_PROCESSES = 4
"""Episodes side by side where each has a process of its own (`env.alone`), which may be a whole emulator."""

TIMED_DECISIONS = 100
"""Decisions in one environment whose latencies are measured."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Episodes:
    """Episodes played side by side.

    Attributes:
        returns: sum of rewards, per episode.
        lengths: decisions, per episode; the episode has one row more.
        model_steps: steps imagined by planners, in all episodes together.
        seconds: how long the agent took for each row of all environments together.
        rows: `[episode, time]` of the longest episode; after the end of a shorter one there is filler.
        carries: the agent's memory at each row, with its newest plan.
    """

    returns: Float[torch.Tensor, " episode"]
    lengths: Int[torch.Tensor, " episode"]
    model_steps: int
    seconds: list[float]
    rows: Batch | None = None
    carries: list[Carry] | None = None


def play(
    agent: Agent,
    env: EnvConfig,
    episodes: int,
    seed: int = 0,
    *,
    explore: bool = False,
    limit: int | None = None,
    keep_rows: bool = False,
    first: int = 0,
) -> Episodes:
    """Play held-out episodes, whose seeds no training episode has.

    Args:
        agent: the agent that acts; with the same seed, all agents meet the same episodes.
        env: the environment.
        episodes: how many.
        seed: of the episodes and of the agent's randomness.
        explore: whether the agent acts to learn.
        limit: number of decisions after which to stop.
        keep_rows: whether to return every row, and what the agent remembered there.
        first: number of the first episode among the episodes of the seed.

    Raises:
        UserError: If the environment fails, or the seed is negative.
    """
    check_seed(seed)
    generator = torch.Generator(agent.device).manual_seed(stream(seed, f"from {first}") if first else seed)
    with EnvPool([env] * episodes) as pool:
        observation = pool.reset([episode_seed(seed, HELD_OUT, first + i) for i in range(episodes)])
        active = torch.ones(episodes, dtype=torch.bool)
        returns, lengths = torch.zeros(episodes), torch.zeros(episodes, dtype=torch.int64)
        is_first, carry, model_steps = active.clone(), None, 0
        rows, carries, seconds = [], [], []
        reward, termination = torch.zeros(episodes), torch.zeros(episodes, dtype=torch.bool)
        for decisions in count():
            start = time.perf_counter()
            action, carry = agent.act(observation, is_first, carry, generator, explore)
            action = action.cpu()  # (which waits for what a GPU has been asked for)
            seconds.append(time.perf_counter() - start)
            if keep_rows:
                rows.append(Batch(observation, action, reward, termination, is_first))
                if carry is not None:
                    carries.append(carry)
            if not bool(active.any()) or decisions == limit:
                break
            if carry is not None and carry.plan is not None and carry.plan.steps is not None:
                model_steps += int(carry.plan.steps.cpu()[active].sum())
            step = pool.step(action, active)
            returns, lengths = returns + step.reward, lengths + active
            observation, reward, termination = step.observation, step.reward, step.terminated
            active = active & ~step.done
            is_first = torch.zeros_like(is_first)
    if not keep_rows:
        return Episodes(returns, lengths, model_steps, seconds)
    return Episodes(returns, lengths, model_steps, seconds, Batch.stack(rows, dim=1), carries)


@dataclass(frozen=True)
class Evaluation:
    """The returns and the speed of an agent; `as_json` is the contract of `worldvae eval --json`.

    Attributes:
        returns: of every episode.
        random_mean: mean return of uniform actions in the same episodes.
        decisions_per_second: in parallel episodes, environment included.
        model_steps_per_decision: imagined steps for each decision.
        latency_ms: of a decision in one environment alone: its 50th, 95th and 99th percentiles.
    """

    env_id: str
    agent: str
    seed: int
    returns: list[float]
    random_mean: float
    decisions_per_second: float
    model_steps_per_decision: float
    latency_ms: tuple[float, float, float]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def ci95(self) -> Interval:
        """95 % bootstrap interval of the mean."""
        return bootstrap(self.returns)

    def better(self, other: "Evaluation") -> tuple[float, Interval]:
        """Return by how much the mean return exceeds another agent's in the same episodes, and its interval.

        Pairing the episodes removes the variance between easy and hard ones.

        Raises:
            ValueError: If they have not played the same episodes.
        """
        if (self.env_id, self.seed, len(self.returns)) != (other.env_id, other.seed, len(other.returns)):
            raise ValueError(
                "agents are compared on the same episodes: give both the same environment, seed and number"
            )
        differences = [mine - theirs for mine, theirs in zip(self.returns, other.returns, strict=True)]
        return float(np.mean(differences)), bootstrap(differences)

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
            "model_steps_per_decision": self.model_steps_per_decision,
            "latency_ms": dict(zip(("p50", "p95", "p99"), self.latency_ms, strict=True)),
        }


def bootstrap(values: Sequence[float]) -> Interval:
    """Return the 95 % interval of the mean, of 10 000 seeded resamples."""
    rng = np.random.default_rng(0)
    drawn = np.asarray(values)
    means = rng.choice(drawn, (10_000, len(drawn))).mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def evaluate(agent: Agent, env: EnvConfig, episodes: int, seed: int = 0) -> Evaluation:
    """Play episodes with an agent, and the same ones with uniform actions.

    Raises:
        UserError: If the environment fails.
    """
    return evaluate_all([agent], env, episodes, seed)[0]


def evaluate_all(
    agents: Sequence[Agent],
    env: EnvConfig,
    episodes: int,
    seed: int = 0,
    tell: Callable[[str], None] = lambda text: None,
) -> list[Evaluation]:
    """Play the same episodes with every agent, and with uniform actions; call `tell` with each result.

    Raises:
        UserError: If the environment fails.
    """
    found = []
    for agent in agents:
        found.append(_score(agent, env, episodes, seed))
        tell(f"{agent.name}: {found[-1].mean:.1f}")
    floor = next((one.mean for one in found if one.agent == RandomAgent.name), None)
    if floor is None:
        with EnvPool([env]) as pool:
            uniform = RandomAgent(pool.action_layout)
        floor = float(np.mean(_returns(in_parts(uniform, env, episodes, seed))))
    return [replace(one, random_mean=floor) for one in found]


def _score(agent: Agent, env: EnvConfig, episodes: int, seed: int) -> Evaluation:
    start = time.perf_counter()
    played = in_parts(agent, env, episodes, seed)
    seconds = time.perf_counter() - start
    alone = 1e3 * np.asarray(play(agent, env, 1, seed, limit=TIMED_DECISIONS).seconds)
    low, high, highest = (float(value) for value in np.percentile(alone, (50, 95, 99)))
    decisions = sum(int(part.lengths.sum()) for part in played)
    return Evaluation(
        env.id,
        agent.name,
        seed,
        _returns(played),
        float("nan"),
        decisions / seconds,
        sum(part.model_steps for part in played) / decisions,
        (low, high, highest),
    )


def _returns(parts: Sequence[Episodes]) -> list[float]:
    return [value for part in parts for value in part.returns.tolist()]


def in_parts(agent: Agent, env: EnvConfig, episodes: int, seed: int, *, keep_rows: bool = False) -> list[Episodes]:
    """Play at most `PARALLEL_EPISODES` episodes at a time; the first part keeps `seed`, the others have their own.

    A planner with a time limit plays its episodes one by one, so that every decision gets the whole limit. Environments
    that need a process each are played `PARALLEL_PROCESSES` at a time.
    """
    sizes = [min(PARALLEL_EPISODES, episodes - done) for done in range(0, episodes, PARALLEL_EPISODES)]
    seeds = [seed, *(episode_seed(seed, HELD_OUT + part, 0) for part in range(1, len(sizes)))]
    together = PARALLEL_PROCESSES if env.alone else PARALLEL_EPISODES
    config = getattr(agent, "config", None)
    if isinstance(config, PlanConfig) and config.max_ms:
        together = 1
    return [
        play(agent, env, min(together, size - first), one, keep_rows=keep_rows, first=first)
        for size, one in zip(sizes, seeds, strict=True)
        for first in range(0, size, together)
    ]
