"""Planning towards goal images, on held-out pairs of start and goal: how often the true state reaches the goal."""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from worldvae.agents import (
    GOALS,
    Agent,
    GoalAgent,
    OracleAgent,
    RandomAgent,
    landmark_distance,
    latent_landmarks,
)
from worldvae.data.replay import Replay
from worldvae.envs import EnvConfig, WorldEnv, make_from
from worldvae.envs.goal_worlds import GoalWorld, TrueDynamics, goal_world
from worldvae.evaluation.play import PARALLEL_EPISODES
from worldvae.planning import Landmarks, Objective, PlanConfig, RiskConfig
from worldvae.runs import checkpoint
from worldvae.runs.run import Run
from worldvae.seeds import HELD_OUT, check_seed, episode_seed
from worldvae.system.lock import Lock
from worldvae.types import Observation

LANDMARK_COUNT = 1024
"""Seen states in the graph of landmarks."""
GOAL_OBJECTIVES = ("geodesic", *GOALS)
"""Words for the distances to a goal that plans can minimise."""
MAX_DRAWS_PER_PAIR = 1000
"""If nearly all pairs are solved at the start, there is nothing to evaluate."""


@dataclass(frozen=True)
class Pairs:
    """Held-out starts and goals, none of them solved already.

    Attributes:
        starts: states.
        goals: states.
        kinds: the group that each pair is counted with.
        solved: how many pairs were drawn and left out, because the start was within the tolerance of the goal.
    """

    starts: Float[np.ndarray, "pair state"]
    goals: Float[np.ndarray, "pair state"]
    kinds: tuple[str, ...]
    solved: int

    def __len__(self) -> int:
        return len(self.starts)


def held_out_pairs(world: GoalWorld, number: int, seed: int = 0) -> Pairs:
    """Draw pairs of start and goal by a seed that no training uses, and leave out those that are solved at the start.

    Raises:
        ValueError: If (nearly) all are solved at the start.
    """
    check_seed(seed)
    rng = np.random.default_rng([seed, HELD_OUT])
    starts: list[np.ndarray] = []
    goals: list[np.ndarray] = []
    solved = 0
    while len(starts) < number:
        start, goal = world.draw(rng)
        if _distance(world, start, goal) <= world.tolerance:
            solved += 1
        else:
            starts.append(start)
            goals.append(goal)
        if solved > MAX_DRAWS_PER_PAIR * number:
            raise ValueError(f"of {solved + len(starts)} pairs of start and goal {solved} were solved from the start")
    kinds = tuple(world.kind(start, goal) for start, goal in zip(starts, goals, strict=True))
    return Pairs(np.stack(starts), np.stack(goals), kinds, solved)


@dataclass(frozen=True)
class Reached:
    """The distances of an agent from its goals.

    Attributes:
        agent: name of the planner.
        objective: the objective of the plans: one of `GOAL_OBJECTIVES`, "true" for the oracle, "none" for random play.
        distances: from the goal, before the first decision and after each, by the true state.
        tolerance: the distance up to which a goal counts as reached.
        kinds: the group of each pair.
        seconds: of all decisions and steps.
        frames: the frames of the filmed pairs, if any.
    """

    agent: str
    objective: str
    distances: Float[np.ndarray, "pair time"]
    tolerance: float
    kinds: tuple[str, ...]
    seconds: float
    frames: UInt8[Tensor, "pair time channel height width"] | None = None

    @property
    def reached(self) -> np.ndarray:
        """Whether each goal was reached after some decision."""
        return np.asarray((self.distances[:, 1:] <= self.tolerance).any(axis=1))

    @property
    def held(self) -> float:
        """Share of the goals that were reached after the last decision, too."""
        return float((self.distances[:, -1] <= self.tolerance).mean())

    @property
    def median_decisions(self) -> float | None:
        """Median number of decisions until the first arrival, over the goals reached; None if there are none."""
        arrivals = 1 + (self.distances[:, 1:] <= self.tolerance).argmax(axis=1)
        return float(np.median(arrivals[self.reached])) if self.reached.any() else None

    def as_json(self) -> dict[str, Any]:
        """Return the entry of `worldvae goals --json`."""
        groups = {kind: self.reached[[k == kind for k in self.kinds]] for kind in sorted(set(self.kinds))}
        return {
            "agent": self.agent,
            "objective": self.objective,
            **_share(self.reached),
            "groups": {kind: _share(reached) for kind, reached in groups.items()},
            "held": self.held,
            "median_decisions": self.median_decisions,
            "final_distance": float(np.median(self.distances[:, -1])),
            "decisions_per_second": self.distances[:, 1:].size / self.seconds,
        }


def _share(reached: np.ndarray) -> dict[str, Any]:
    interval = wilson(int(reached.sum()), len(reached))
    return {"pairs": len(reached), "success": float(reached.mean()), "ci95": list(interval)}


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share.

    Reference: Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    z = 1.959963984540054
    share, weight = successes / trials, z * z / trials
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


@torch.no_grad()
def seen_landmarks(run: Run, seed: int = 0) -> Landmarks:
    """Return the latents of `LANDMARK_COUNT` rows that a run was trained on, each inferred from its frame alone.

    Raises:
        UserError: If there is no replay, or a training is writing to it.
    """
    path = checkpoint.latest(run.folder / "checkpoints")
    assert path is not None, "a run that was loaded has a checkpoint"
    with closing(Lock(run.folder)):
        replay = Replay.open(run.folder / "replay", checkpoint.load(path)["replay"])
        rows = replay.sample(LANDMARK_COUNT // 8, 8, torch.Generator().manual_seed(seed))
    return latent_landmarks(run.model, rows.observation.flatten())


class GoalSuite:
    """Held-out pairs of start and goal in one environment, and agents that play them.

    Args:
        env: the environment.
        pairs: how many.
        seed: of the pairs and of the agents' randomness.

    Raises:
        UserError: If no goals are known of the environment.
    """

    def __init__(self, env: EnvConfig, pairs: int, seed: int = 0) -> None:
        self.env, self.seed = env, seed
        self._landmarks: Landmarks | None = None
        with closing(make_from(env)) as made:
            self.world = goal_world(made.env, env.id)
            self.layout = made.action_layout
            self.budget = max(1, min(self.world.budget, made.time_limit or self.world.budget) // env.action_repeat)
            self.pairs = held_out_pairs(self.world, pairs, seed)
            self.goals = _stacked([_placed(made, self.world, goal, seed) for goal in self.pairs.goals])

    def random(self) -> Reached:
        """Play uniform actions: the floor."""
        return self._play("random", "none", lambda part: RandomAgent(self.layout))

    def oracle(self, config: PlanConfig) -> Reached:
        """Play a planner that has the true dynamics, the true states and their distance: the ceiling."""
        dynamics = TrueDynamics(self.world, self.env.action_repeat)
        config = replace(config, value=False, risk=RiskConfig())  # there is nothing to doubt
        goals = torch.from_numpy(self.pairs.goals).float()

        def make(part: slice) -> Agent:
            return OracleAgent(dynamics, self.layout, config, self.world.distance, goals[part])

        return self._play(None, "true", make, truth=True)

    def model(self, run: Run, name: str, objective: str, film: int = 0) -> Reached:
        """Play the planner `name` of a run on its world model, which sees the goals' frames; film `film` pairs.

        Raises:
            UserError: If the objective is "geodesic", and the replay of the run cannot be read.
        """
        config: PlanConfig = getattr(run.config, name)

        def make(part: slice) -> Agent:
            return GoalAgent(run.model, config, self._objective(run, objective, part))

        return self._play(name, objective, make, film=film)

    def _objective(self, run: Run, name: str, part: slice) -> Objective:
        goals = self.goals[part]
        if name in GOALS:
            return GOALS[name](run.model, goals)
        if self._landmarks is None:
            self._landmarks = seen_landmarks(run, self.seed)
        return landmark_distance(run.model, goals, self._landmarks)

    @torch.no_grad()
    def _play(
        self, name: str | None, objective: str, make: Callable[[slice], Agent], *, truth: bool = False, film: int = 0
    ) -> Reached:
        """Play all pairs for the whole budget, `PARALLEL_EPISODES` at a time (1 if a process holds only one)."""
        distances, filmed, begun = [], [], time.perf_counter()
        together = 1 if self.env.alone else PARALLEL_EPISODES
        for first in range(0, len(self.pairs), together):
            part = slice(first, first + together)
            agent = make(part)
            name = name or agent.name
            keep = max(0, min(film - first, together))
            found, shown = self._play_part(agent, part, truth, keep)
            distances.append(found)
            filmed.append(shown)
        seconds = time.perf_counter() - begun
        frames = Observation.cat(filmed, dim=0).pixels if film else None
        assert name is not None
        return Reached(
            name, objective, np.concatenate(distances), self.world.tolerance, self.pairs.kinds, seconds, frames
        )

    def _play_part(self, agent: Agent, part: slice, truth: bool, film: int) -> tuple[np.ndarray, Observation]:
        """Return the distances `[pair, time]` from the goals, and the observations of the first `film` pairs."""
        world, starts, goals = self.world, self.pairs.starts[part], self.pairs.goals[part]
        generator = torch.Generator(agent.device).manual_seed(episode_seed(self.seed, HELD_OUT, part.start))
        with ExitStack() as opened:
            envs = [opened.enter_context(closing(make_from(self.env))) for _ in starts]
            shown = [_placed(env, world, start, self.seed) for env, start in zip(envs, starts, strict=True)]
            is_first, carry, over = torch.ones(len(envs), dtype=torch.bool), None, [False] * len(envs)
            states = [np.stack([world.state(env.env.unwrapped) for env in envs])]
            filmed = [_stacked(shown)[:film]]
            for _ in range(self.budget):
                seen = Observation(vector=torch.from_numpy(states[-1]).float()) if truth else _stacked(shown)
                action, carry = agent.act(seen, is_first, carry, generator)
                moves = action.cpu().numpy()
                for row, (env, move) in enumerate(zip(envs, moves, strict=True)):
                    if not over[row]:  # else it stays where its episode ended
                        shown[row], _, terminated, truncated, _ = env.step(move)
                        over[row] = terminated or truncated
                states.append(np.stack([world.state(env.env.unwrapped) for env in envs]))
                filmed.append(_stacked(shown)[:film])
                is_first = torch.zeros_like(is_first)
        return np.stack([_distance(world, state, goals) for state in states], axis=1), Observation.stack(filmed, dim=1)


def _placed(env: WorldEnv, world: GoalWorld, state: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Begin an episode in a state, and return its first observation."""
    env.reset(seed=episode_seed(seed, HELD_OUT, 0))
    return env.show(world.place(env.env.unwrapped, state))


def _stacked(shown: list[dict[str, np.ndarray]]) -> Observation:
    parts = {key: torch.from_numpy(np.stack([row[key] for row in shown])) for key in shown[0]}
    return Observation(parts.get("pixels"), parts.get("vector"))


def _distance(world: GoalWorld, state: np.ndarray, goal: np.ndarray) -> np.ndarray:
    return world.distance(torch.from_numpy(state), torch.from_numpy(goal)).numpy()
