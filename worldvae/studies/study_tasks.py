"""The tasks of the study of model kinds, and what each of its budgets spends on them.

The arithmetic of `small`, with two jobs on two cores: 13 rows are trained. On `pendulum` B = 4 min, and each row also
tries 2 configurations for B / 4: 13 x (4 + 2 x 1) / 2 = 39 min, and 13 x 1.5 / 2 = 10 min of measurements. On `linear`
(12 rows) B = 1 min in time and again in operations: 12 x (1 + 2 x 0.25 + at most 2) / 2 = 21 min at worst and 15 min
if operations take as long as on the reference machine, and 12 x 2 x 0.5 / 2 = 6 min of measurements. With the data
that is 72 to 78 minutes of 90. A point 4B would add 13 x 16 / 2 = 104 min on `pendulum`: only `medium` has it. A block
of measurements that would take longer than `Budget.longest` is left out, with its cost: the contrastive energy, with
180 gradients for an imagined step, does not plan from frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from worldvae.config import find_config
from worldvae.errors import UserError, near_miss
from worldvae.runs.settings import RunConfig, configure

Unit = Literal["time", "flops"]
BudgetName = Literal["small", "medium"]

LONGEST = 2.0
"""A training whose budget is in operations ends at the latest after this multiple of the same budget in time."""


@dataclass(frozen=True)
class Point:
    """How long a row is trained: `times` B, in seconds of wall time or in floating-point operations."""

    times: int
    unit: Unit

    @property
    def name(self) -> str:
        """The point as a part of a key, such as "4B-time"."""
        return f"{self.times if self.times > 1 else ''}B-{self.unit}"


ONE, FOUR = Point(1, "time"), Point(4, "time")
SAME_WORK, FOUR_WORK = Point(1, "flops"), Point(4, "flops")


@dataclass(frozen=True)
class Budget:
    """What is spent on each row of a task.

    Attributes:
        seconds: B in seconds of wall time.
        flops: B in floating-point operations of matrix products and convolutions.
        points: how long a row is trained; a training for each.
        tuning: number of configurations that each row tries for B / 4 before: its defaults, and random ones.
        recorded: number of recorded episodes, for training, validation and test.
        played: number of episodes that a row plans through with equal candidates.
        played_pixels: the same for rows that imagine pixels, of which a decision takes 0.3 s or more.
        milliseconds: times for a decision in which rows plan what they can.
        played_timed: number of episodes for each of these times.
        longest: seconds that a block of measurements may be expected to take; a row that needs more does without it.
    """

    seconds: float
    flops: float
    points: tuple[Point, ...] = (ONE,)
    tuning: int = 2
    recorded: int = 120
    played: int = 10
    played_pixels: int = 3
    milliseconds: tuple[float, ...] = (20.0, 100.0)
    played_timed: int = 2
    longest: float = 240.0

    def limits(self, point: Point) -> tuple[float, float | None]:
        """Return the most seconds of a training, and its floating-point operations if they decide."""
        if point.unit == "time":
            return point.times * self.seconds, None
        return LONGEST * point.times * self.seconds, point.times * self.flops


@dataclass(frozen=True)
class Task:
    """A task of the study.

    Attributes:
        name: word for `--tasks`.
        config: name of a config, or its content.
        budgets: what each budget spends; a task that a budget leaves out is not in the table.
        context: rows that a model observes before it predicts.
        horizons: steps ahead at which predictions are measured.
        plan_horizon: steps of a plan.
        plan_discount: discount of rewards in a plan.
        overrides: settings on top of the config, for every row.
    """

    name: str
    config: str | Mapping[str, Any]
    budgets: Mapping[str, Budget]
    context: int = 5
    horizons: tuple[int, ...] = (1, 5, 10, 20)
    plan_horizon: int = 12
    plan_discount: float = 0.98
    overrides: tuple[str, ...] = ()

    def configure(self, overrides: tuple[str, ...] = ()) -> RunConfig:
        """Return the settings of the task with `overrides`.

        Raises:
            UserError: If the config does not exist or a setting is refused.
        """
        if isinstance(self.config, str) and find_config(self.config) is None:
            raise UserError(f"the task {self.name} needs the config {self.config}, and there is none: reinstall.")
        source = find_config(self.config) if isinstance(self.config, str) else self.config
        return configure(source if isinstance(source, Path) else dict(source or {}), [*self.overrides, *overrides])

    def budget(self, name: str) -> Budget:
        """Return what the budget of that name spends.

        Raises:
            UserError: If it leaves the task out.
        """
        if name not in self.budgets:
            raise UserError(f"--tasks: {self.name} is not part of --budget {name}: take --budget medium.")
        return self.budgets[name]


EVERY_POINT = (ONE, SAME_WORK, FOUR, FOUR_WORK)

# B in operations is what the row `vae` computes in B seconds on one core: 51.6 GFLOP/s with 64 x 64 frames (3.65 GFLOP
# and 70.7 ms an update of 16 x 16 rows) and 27.0 GFLOP/s with vectors (0.477 GFLOP and 17.7 ms), an AVX-512 core.
_PIXELS, _VECTORS = 51.6e9, 27.0e9


def _medium(seconds: float, rate: float) -> Budget:
    milliseconds = (20.0, 100.0, 500.0)
    return Budget(seconds, seconds * rate, EVERY_POINT, 4, 200, 20, 5, milliseconds, 5, longest=1200.0)


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            "pendulum",
            "study/pendulum",
            {"small": Budget(240.0, 240 * _PIXELS), "medium": _medium(600.0, _PIXELS)},
        ),
        Task(
            "linear",
            "study/linear",
            {"small": Budget(60.0, 60 * _VECTORS, (ONE, SAME_WORK), longest=60.0), "medium": _medium(120.0, _VECTORS)},
            plan_horizon=10,
            plan_discount=1.0,
            overrides=("model.perceptron=normed",),  # the only kind that all rows can have
        ),
        Task("wind", "study/wind", {"medium": _medium(300.0, _PIXELS)}),
        Task("detail", "study/detail", {"medium": _medium(300.0, _PIXELS)}),
        Task("pendulum_no_arrow", "study/pendulum_no_arrow", {"medium": _medium(600.0, _PIXELS)}),
        Task("cartpole", "study/cartpole", {"medium": _medium(600.0, _PIXELS)}, plan_discount=0.99),
    )
}
"""Every task of the study by its name."""


def tasks_of(budget: str, given: tuple[str, ...] = ()) -> list[Task]:
    """Return the tasks called `given`, or all that a budget has.

    Raises:
        UserError: If there is no such task, or the budget leaves it out.
    """
    for name in given:
        if name not in TASKS:
            raise UserError(f"--tasks: {name!r} is not a task: {', '.join(TASKS)}.{near_miss(name, TASKS)}")
    found = [TASKS[name] for name in dict.fromkeys(given)] or [t for t in TASKS.values() if budget in t.budgets]
    for task in found:
        task.budget(budget)
    return found
