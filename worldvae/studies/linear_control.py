"""A learned world model at the helm of the linear-Gaussian world, held against the optimal controller.

Everything a controller needs is learned: what is inferred of the state, how it goes on, and what it earns. The optimal
controller meets the same disturbances, so that

    cost = the optimum, which is known exactly + the mean of (what the model pays - what the optimum pays)

has an error far below that of either mean. On average no controller pays less than the optimum.
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
"""The configs that act here, by planner: horizons at which the exact model pays a few thousandths above the optimum."""


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


class Expected:
    """What a world model expects: it imagines with the mode of p(z | h), and planners need no luck.

    Where dynamics are linear and costs quadratic, planning for the mean is optimal (certainty equivalence).
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
    """The true worlds of the episodes: their states, and what has been seen and done.

    Args:
        world: their matrices.
        start: the states they begin in.
        first: what is seen of them.
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


class WorldNoise:
    """Draws the noise of `episodes` parallel worlds: their first states, disturbances and observation noise.

    Args:
        world: whose matrices say how the noise is distributed.
        episodes: worlds that are played side by side.
        seed: of the generator.
    """

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
        """Begin an episode in each world."""
        start = self.world.m0 + self(self.world.P0)
        return Plant(self.world, start, start @ self.world.C.mT + self(self.world.R))


def optimal(plant: Plant) -> Float64[Tensor, "batch action"]:
    """Act on what the Kalman filter knows."""
    action: Tensor = -kalman_filter(plant.world, *plant.history()).mean[:, -1] @ lqr_gain(plant.world).mT
    return action


@torch.no_grad()
def believe(model: SequentialVAE, plant: Plant) -> State:
    """Return the mode of q for the last row, given all rows so far.

    The last row has no future, so that what a smoother of x_{1:t} says of z_t is a filter's answer; the rows before it
    are seen anew with what came after them. (Going on from what each row said of itself when it was the last would be
    filtering with q(z_t | z_{t-1}, x_t) as if z_{t-1} were certain.)
    """
    return model.observe(rows_of(*plant.history()), mode=True).posterior[:, -1]


class Pilot:
    """A planner that acts on a learned model: looks at all rows so far, plans, and takes the first action.

    Args:
        model: what it knows of the world.
        planner: a name in `PLANNER_CONFIGS`.
        seed: of its draws.

    Raises:
        ValueError: If there is no such planner.
    """

    def __init__(self, model: SequentialVAE, planner: str, seed: int) -> None:
        if planner not in PLANNER_CONFIGS:
            raise ValueError(
                f"planner={planner!r} is not a planner that controls: take one of {', '.join(PLANNER_CONFIGS)}"
            )
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
    """Return episodes in which a planner acts with Gaussian noise of this deviation, and what they earned."""
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
    """Let a planner act on a learned model from the first row on; return what it pays once the start is forgotten.

    Args:
        model: from `learn_to_control`.
        world: "mild" or "stiff", as it was there.
        planner: a name in `PLANNER_CONFIGS`.
        episodes: that are played side by side.
        burn_in: steps that do not count.
        steps: that do.
        seed: of the world's disturbances and of the planner.

    Raises:
        ValueError: If there is no such world or planner, or a number is too small.
    """
    truth, pilot = named_world(world), Pilot(model, planner, seed)
    if episodes < 2 or burn_in < 0 or steps < 1:
        raise ValueError("a standard error needs 2 episodes at least, and at least 1 step must count")
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
