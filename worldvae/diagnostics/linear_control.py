"""A learned world model at the helm of the linear-Gaussian world, held against the optimal controller.

Everything a controller needs is learned: what is inferred of the state, how it goes on, and what it earns. The optimal
controller meets the same disturbances, so that

    cost = the optimum, which is known exactly + the mean of (what the model pays - what the optimum pays)

has an error far below that of either mean. On average no controller pays less than the optimum.
"""

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

from worldvae.diagnostics.linear_world import LENGTH, LINEAR, OPTIMISER, REACH, WORLDS, learn_linear_world, rows_of
from worldvae.exact import COST, LinearGaussian, kalman_filter, lqg_cost, lqr_gain, roll_out
from worldvae.learner import Optimiser
from worldvae.planning import (
    CEMConfig,
    GradientConfig,
    ICEMConfig,
    MPPIConfig,
    Plan,
    PlanConfig,
    discounted_return,
    plan,
)
from worldvae.types import Batch, Dream, Observation, State
from worldvae.world_model import WorldModel

PARTS = replace(LINEAR, memory_action=True, reward="gaussian")
"""A reward whose mean is as smooth as the true one, and which knows what was done."""

EPISODES, PICKED = 2048, 2048
"""Of which rewards are learned, and how many of their rows in an update."""

DICE = 2**41
"""Added to the seeds of the worlds that are controlled, which no training and no planner has."""

LEAST = 0.1
"""Share of `REACH` that the calmest episodes act with: near the optimum, where it matters, actions are small."""

SEARCH = {"horizon": 10, "candidates": 80, "elites": 8, "iterations": 4, "std": 0.15, "min_std": 0.005, "discount": 1.0}
PLANNERS: dict[str, PlanConfig] = {
    "cem": CEMConfig(**SEARCH),  # type: ignore[arg-type]
    "icem": ICEMConfig(**SEARCH),  # type: ignore[arg-type]
    "mppi": MPPIConfig(**SEARCH, value=False),  # type: ignore[arg-type]
    "gradient": GradientConfig(horizon=10, restarts=2, iterations=15, learning_rate=0.02, std=0.1, discount=1.0),
}
"""Planners that look so far ahead that the exact model would let them pay a few thousandths more than the optimum."""


@dataclass(frozen=True)
class LinearControlResult:
    """What acting with a learned model costs, a step.

    Attributes:
        world: "mild" or "stiff".
        planner: that acted.
        seed: of the world's disturbances and of the planner.
        episodes: that were played.
        steps: of each that count, after as many as it took to forget the start.
        optimum: the least there is on average (kind: exact).
        cost: optimum + mean difference to the optimal controller under the same disturbances (kind: estimate).
        error: standard error of that difference.
        seconds: a decision took, for all episodes at once.
    """

    world: str
    planner: str
    seed: int
    episodes: int
    steps: int
    optimum: float
    cost: float
    error: float
    seconds: float

    @property
    def ratio(self) -> float:
        """What is paid for each unit that the optimum pays."""
        return self.cost / self.optimum

    def as_json(self) -> dict[str, Any]:
        """Return the numbers."""
        return asdict(self) | {"ratio": self.ratio}


def control_table(results: Sequence[LinearControlResult]) -> str:
    """Return the results as a table in Markdown: costs a step, ± standard errors."""
    rows = ["| world | planner | seed | cost of a step | optimum | ratio |", "|---|---|---|---|---|---|"]
    for r in results:
        numbers = f"{r.cost:.5f} ± {r.error:.5f} | {r.optimum:.5f} | {r.ratio:.3f} ± {r.error / r.optimum:.3f}"
        rows.append(f"| {r.world} | {r.planner} | {r.seed} | {numbers} |")
    return "\n".join(rows)


def rewarded_episodes(world: LinearGaussian, number: int, generator: torch.Generator) -> Batch:
    """Return episodes of uniform actions, each of a reach of its own (log-uniform), with what they earned."""
    reach = REACH * LEAST ** torch.rand(number, 1, 1, dtype=torch.float64, generator=generator)
    shape = (number, LENGTH, world.B.shape[1])
    actions = reach * (2 * torch.rand(shape, dtype=torch.float64, generator=generator) - 1)
    observations, states = roll_out(world, actions, generator)
    earned = -COST.of(states[:, 1:], actions[:, :-1]).float()
    return replace(rows_of(observations, actions), reward=F.pad(earned, (1, 0)))


def learn_to_control(
    world: str = "stiff", updates: int = 6000, seed: int = 0, *, progress: Callable[[str], object] | None = None
) -> WorldModel:
    """Train a model of a linear-Gaussian world that smooths (`learn_linear_world`), then its rewards (`learn_rewards`).

    Args:
        world: "mild" or "stiff".
        updates: of the optimiser, and as many on rewards, which are cheap.
        seed: of weights, episodes and noise.
        progress: is told in a line, now and then, how far it is.
    """
    found = learn_linear_world(world, "smooth", updates, seed, parts=PARTS, episodes=2, samples=1, progress=progress)
    return learn_rewards(found.model, world, updates, seed)


def learn_rewards(model: WorldModel, world: str = "stiff", updates: int = 3000, seed: int = 0) -> WorldModel:
    """Return a copy of a model that has learned, of what its posterior makes of fresh episodes, what they earn.

    p(r | h, z) and p(c | h, z) alone are fitted. In one bound with the world, rewards, which know the state without
    noise, would have a posterior that does not read them hide how uncertain it is, and p would be bent. The first row,
    where nothing has been earned yet, is left out.

    Args:
        model: from `learn_linear_world`, with a posterior that smooths.
        world: "mild" or "stiff", as it was there.
        updates: of the optimiser; a thousand take some seconds.
        seed: of episodes and noise.

    Raises:
        ValueError: If there is no such world, or no update.
    """
    truth = _known(world)
    if updates < 1:
        raise ValueError(f"updates={updates} must be at least 1")
    generator, model = torch.Generator().manual_seed(seed), deepcopy(model)
    rows = rewarded_episodes(truth, EPISODES, generator)
    model.calibrate(Observation(), rows.reward)
    with torch.no_grad():
        found = model.observe(rows, generator=generator).posterior
    later = ~rows.is_first
    states, rewards, goes_on = State(found.memory, found.latent)[later], rows.reward[later], ~rows.termination[later]
    heads = chain(model.reward_head.parameters(), model.continuation_head.parameters())
    optimiser = Optimiser(heads, OPTIMISER)
    for update in range(updates):
        picked = torch.randint(len(rewards), (PICKED,), generator=generator)
        reward, continuation = model.reward(states[picked]), model.continuation(states[picked])
        nats = reward.log_prob(rewards[picked]) + continuation.log_prob(goes_on[picked].float())
        optimiser.step(-nats.mean(), update / updates)
    return model


class Expected:
    """What a world model expects: it imagines with the mode of p(z | h), and planners need no luck.

    Where dynamics are linear and costs quadratic, planning for the mean is optimal (certainty equivalence).
    """

    def __init__(self, model: WorldModel) -> None:
        self.model, self.action_layout = model, model.action_layout

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"],
        horizon: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Dream:
        """Roll forward from `start` with given actions."""
        return self.model.imagine(start, actions, horizon, generator, mode=True)


class Plant:
    """The true worlds of the episodes: their states, and what has been seen and done.

    Args:
        world: their matrices.
        start: the states they begin in.
        noise: on the first row.
    """

    def __init__(
        self,
        world: LinearGaussian,
        start: Float64[Tensor, "batch latent"],
        noise: Float64[Tensor, "batch observation"],
    ) -> None:
        self.world, self.state = world, start
        self.seen: list[Tensor] = [start @ world.C.mT + noise]
        self.done: list[Tensor] = []

    def step(self, action: Tensor, disturbance: Tensor, noise: Tensor) -> Float64[Tensor, "batch"]:
        """Act; return what it costs."""
        world = self.world
        self.state = self.state @ world.A.mT + action @ world.B.mT + disturbance
        self.seen.append(self.state @ world.C.mT + noise)
        self.done.append(action)
        return COST.of(self.state, action)

    def history(self) -> tuple[Float64[Tensor, "batch time observation"], Float64[Tensor, "batch time action"]]:
        """Return all rows so far; in the last nothing has been done yet."""
        nothing = self.state.new_zeros(len(self.state), self.world.B.shape[1])
        return torch.stack(self.seen, dim=1), torch.stack([*self.done, nothing], dim=1)


def optimal(plant: Plant) -> Float64[Tensor, "batch action"]:
    """Act on what the Kalman filter knows."""
    action: Tensor = -kalman_filter(plant.world, *plant.history()).mean[:, -1] @ lqr_gain(plant.world).mT
    return action


@torch.no_grad()
def believe(model: WorldModel, plant: Plant) -> State:
    """Return the mode of q for the last row, given all rows so far.

    The last row has no future, so that what a smoother of x_{1:t} says of z_t is a filter's answer; the rows before it
    are seen anew with what came after them. (Going on from what each row said of itself when it was the last would be
    filtering with q(z_t | z_{t-1}, x_t) as if z_{t-1} were certain.)
    """
    return model.observe(rows_of(*plant.history()), mode=True).posterior[:, -1]


def control(
    model: WorldModel,
    world: str = "stiff",
    planner: str = "cem",
    *,
    episodes: int = 48,
    burn_in: int = 50,
    steps: int = 50,
    seed: int = 0,
) -> LinearControlResult:
    """Let a planner act on a learned model from the first row on; return what it pays once the start is forgotten.

    Args:
        model: from `learn_to_control`.
        world: "mild" or "stiff", as it was there.
        planner: a name in `PLANNERS`.
        episodes: that are played side by side.
        burn_in: steps that do not count.
        steps: that do.
        seed: of the world's disturbances and of the planner.

    Raises:
        ValueError: If there is no such world or planner, or a number is too small.
    """
    truth = _known(world)
    if planner not in PLANNERS:
        raise ValueError(f"planner={planner!r} is not a planner that controls: take one of {', '.join(PLANNERS)}")
    if episodes < 2 or burn_in < 0 or steps < 1:
        raise ValueError("a standard error needs 2 episodes at least, and at least 1 step must count")
    dice, draws = torch.Generator().manual_seed(DICE + seed), torch.Generator().manual_seed(seed)

    def normal(root: Tensor) -> Tensor:
        white = torch.randn(episodes, len(root), dtype=torch.float64, generator=dice)
        return torch.einsum("ij,bj->bi", torch.linalg.cholesky(root), white)

    start, noise = truth.m0 + normal(truth.P0), normal(truth.R)
    ours, best = Plant(truth, start, noise), Plant(truth, start, noise)
    solve = partial(plan, Expected(model), objective=partial(discounted_return, discount=1.0), config=PLANNERS[planner])
    more, previous, began = torch.zeros(episodes, dtype=torch.float64), None, time.perf_counter()
    for t in range(burn_in + steps):
        found: Plan = solve(believe(model, ours), generator=draws, previous=previous, keys=range(episodes))
        previous, action = found, REACH * found.actions[:, 0].double()
        shock = normal(truth.Q), normal(truth.R)
        difference = ours.step(action, *shock) - best.step(optimal(best), *shock)
        if t >= burn_in:
            more += difference / steps
    least, seconds = float(lqg_cost(truth)), (time.perf_counter() - began) / (burn_in + steps)
    error = float(more.std()) / math.sqrt(episodes)
    return LinearControlResult(
        *(world, planner, seed, episodes, steps), least, least + float(more.mean()), error, seconds
    )


def _known(world: str) -> LinearGaussian:
    if world not in WORLDS:
        raise ValueError(f"world={world!r} is not a linear-Gaussian world: take one of {', '.join(WORLDS)}")
    return WORLDS[world]
