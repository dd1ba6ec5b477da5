"""Control of the linear-Gaussian world with a learned world model, compared with the optimal controller.

The model learns everything a controller needs: to infer the state, to predict it, and to predict rewards. The optimal
controller meets the same noise, so that

    cost = optimum (known exactly) + mean of (the model's cost - the optimal controller's cost)

has a much smaller error than either mean. On average no controller costs less than the optimum.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn import functional as F

from worldvae.exact import COST, LinearGaussian, kalman_filter, lqg_cost, lqr_gain, named_world
from worldvae.models.sequential_vae import SequentialVAE
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
from worldvae.seeds import stream
from worldvae.studies.linear_world import EPISODE_ROWS, MAX_ACTION, rows_of
from worldvae.types import Batch, Dream, State

SEARCH_SETTINGS = {
    "horizon": 10,
    "candidates": 80,
    "elites": 8,
    "iterations": 4,
    "std": 0.15,
    "min_std": 0.005,
    "discount": 1.0,
}
PLANNER_CONFIGS: dict[str, PlanConfig] = {
    "cem": CEMConfig(**SEARCH_SETTINGS),  # type: ignore[arg-type]
    "icem": ICEMConfig(**SEARCH_SETTINGS),  # type: ignore[arg-type]
    "mppi": MPPIConfig(**SEARCH_SETTINGS, value=False),  # type: ignore[arg-type]
    "gradient": GradientConfig(horizon=10, restarts=2, iterations=15, learning_rate=0.02, std=0.1, discount=1.0),
}
"""Planners with a horizon so long that with the exact model they cost only a few thousandths more than the optimum."""


@dataclass(frozen=True)
class LinearControlResult:
    """The cost of control with a learned model, per step.

    Attributes:
        world: "mild" or "stiff".
        planner: name of the planner.
        seed: seed of the world's noise and of the planner.
        episodes: number of episodes played.
        steps: steps per episode that count; earlier ones, which depend on the start, do not.
        optimum: the least average cost (kind: exact).
        cost: optimum + mean difference to the optimal controller with the same noise (kind: estimate).
        error: standard error of that difference.
        seconds: time of a decision, for all episodes together.
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
        """Cost as a multiple of the optimum."""
        return self.cost / self.optimum

    def as_json(self) -> dict[str, Any]:
        """Return the numbers."""
        return asdict(self) | {"ratio": self.ratio}


def control_table(results: Sequence[LinearControlResult]) -> str:
    """Return the results as a table in Markdown: costs per step, ± standard errors."""
    rows = ["| world | planner | seed | cost of a step | optimum | ratio |", "|---|---|---|---|---|---|"]
    for r in results:
        numbers = f"{r.cost:.5f} ± {r.error:.5f} | {r.optimum:.5f} | {r.ratio:.3f} ± {r.error / r.optimum:.3f}"
        rows.append(f"| {r.world} | {r.planner} | {r.seed} | {numbers} |")
    return "\n".join(rows)


class Expected:
    """Imagination that follows the mode of p(z | h): planners then need no average over draws.

    If dynamics are linear and costs quadratic, planning for the mean is optimal (certainty equivalence).
    """

    def __init__(self, model: SequentialVAE) -> None:
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
    """The true worlds of the episodes: their states, and all observations and actions so far.

    Args:
        world: their matrices.
        start: their initial states.
        first: their first observations.
    """

    def __init__(
        self,
        world: LinearGaussian,
        start: Float64[Tensor, "batch latent"],
        first: Float64[Tensor, "batch observation"],
    ) -> None:
        self.world, self.state = world, start
        self.seen: list[Tensor] = [first]
        self.done: list[Tensor] = []

    def step(self, action: Tensor, disturbance: Tensor, noise: Tensor) -> Float64[Tensor, "batch"]:
        """Take an action; return its cost."""
        world = self.world
        self.state = self.state @ world.A.mT + action @ world.B.mT + disturbance
        self.seen.append(self.state @ world.C.mT + noise)
        self.done.append(action)
        return COST.of(self.state, action)

    def history(self) -> tuple[Float64[Tensor, "batch time observation"], Float64[Tensor, "batch time action"]]:
        """Return all rows so far; the action of the last row is still zero."""
        nothing = self.state.new_zeros(len(self.state), self.world.B.shape[1])
        return torch.stack(self.seen, dim=1), torch.stack([*self.done, nothing], dim=1)


class WorldNoise:
    """Draws the noise of `episodes` parallel worlds."""

    def __init__(self, world: LinearGaussian, episodes: int, seed: int) -> None:
        self.world, self.episodes, self.generator = world, episodes, torch.Generator().manual_seed(seed)

    def white(self, size: int) -> Float64[Tensor, "batch size"]:
        """Draw from N(0, I)."""
        return torch.randn(self.episodes, size, dtype=torch.float64, generator=self.generator)

    def __call__(self, covariance: Float64[Tensor, "size size"]) -> Float64[Tensor, "batch size"]:
        """Draw from N(0, covariance)."""
        drawn: Tensor = self.white(len(covariance)) @ torch.linalg.cholesky(covariance).mT
        return drawn

    def plant(self) -> Plant:
        """Start an episode in each world."""
        start = self.world.m0 + self(self.world.P0)
        return Plant(self.world, start, start @ self.world.C.mT + self(self.world.R))


def optimal(plant: Plant) -> Float64[Tensor, "batch action"]:
    """Return the optimal action given the mean of the Kalman filter."""
    action: Tensor = -kalman_filter(plant.world, *plant.history()).mean[:, -1] @ lqr_gain(plant.world).mT
    return action


@torch.no_grad()
def believe(model: SequentialVAE, plant: Plant) -> State:
    """Return the mode of q for the last row, given all rows so far.

    The last row has no future, so that the smoother's z_t given x_{1:t} is what a filter would infer; the earlier rows
    are inferred again with what came after them. (Keeping each row's own result from when it was the last would be
    filtering with q(z_t | z_{t-1}, x_t) as if z_{t-1} were certain.)
    """
    return model.observe(rows_of(*plant.history()), mode=True).posterior[:, -1]


class Pilot:
    """A planner that acts with a learned model: it reads all rows so far, plans, and takes the first action.

    Args:
        model: the world model.
        planner: a key of `PLANNER_CONFIGS`.
        seed: seed of its draws.

    Raises:
        ValueError: If there is no such planner.
    """

    def __init__(self, model: SequentialVAE, planner: str, seed: int) -> None:
        if planner not in PLANNER_CONFIGS:
            raise ValueError(f"planner={planner!r} is not in this study: take one of {', '.join(PLANNER_CONFIGS)}")
        self.model, self.config, self.expected = model, PLANNER_CONFIGS[planner], Expected(model)
        self.generator, self.previous = torch.Generator().manual_seed(seed), cast(Plan | None, None)

    def act(self, plant: Plant) -> Float64[Tensor, "batch action"]:
        """Return the next action, in [-1, 1]."""
        self.previous = plan(
            self.expected,
            believe(self.model, plant),
            partial(discounted_return, discount=1.0),
            self.config,
            self.generator,
            previous=self.previous,
            keys=range(len(plant.state)),
        )
        return self.previous.actions[:, 0].double()


def play(
    model: SequentialVAE, world: str, planner: str = "icem", *, episodes: int = 256, noise: float = 0.1, seed: int = 0
) -> Batch:
    """Return episodes in which a planner acts with Gaussian noise of this deviation, with their rewards."""
    truth, pilot = named_world(world), Pilot(model, planner, seed)
    draw = WorldNoise(truth, episodes, seed)
    plant, earned = draw.plant(), []
    for _ in range(EPISODE_ROWS - 1):
        action = (pilot.act(plant) + noise * draw.white(truth.B.shape[1])).clamp(-1, 1)
        earned.append(-plant.step(MAX_ACTION * action, draw(truth.Q), draw(truth.R)).float())
    return replace(rows_of(*plant.history()), reward=F.pad(torch.stack(earned, dim=1), (1, 0)))


def control(
    model: SequentialVAE,
    world: str = "stiff",
    planner: str = "cem",
    *,
    episodes: int = 128,
    burn_in: int = 50,
    steps: int = 50,
    seed: int = 0,
) -> LinearControlResult:
    """Let a planner act with a learned model from the first row on; return its cost after the influence of the start.

    Args:
        model: result of `learn_to_control`.
        world: "mild" or "stiff", the same as in `learn_to_control`.
        planner: a key of `PLANNER_CONFIGS`.
        episodes: number of episodes played in parallel.
        burn_in: first steps, which do not count.
        steps: later steps, which count.
        seed: seed of the world's noise and of the planner.

    Raises:
        ValueError: If no world or planner has this name, or a number is too small.
    """
    truth, pilot = named_world(world), Pilot(model, planner, seed)
    if episodes < 2 or burn_in < 0 or steps < 1:
        raise ValueError("take at least 2 episodes, for a standard error, and at least 1 step that counts")
    draw = WorldNoise(truth, episodes, stream(seed, "control"))
    ours = draw.plant()
    best = Plant(truth, ours.state, ours.seen[0])
    more, seconds = torch.zeros(episodes, dtype=torch.float64), 0.0
    for t in range(burn_in + steps):
        began = time.perf_counter()
        action = pilot.act(ours)
        seconds += (time.perf_counter() - began) / (burn_in + steps)
        shock = draw(truth.Q), draw(truth.R)
        difference = ours.step(MAX_ACTION * action, *shock) - best.step(optimal(best), *shock)
        if t >= burn_in:
            more += difference / steps
    least, error = float(lqg_cost(truth)), float(more.std()) / math.sqrt(episodes)
    return LinearControlResult(
        *(world, planner, seed, episodes, steps), least, least + float(more.mean()), error, seconds
    )
