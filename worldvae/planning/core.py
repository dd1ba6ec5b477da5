"""What every planner returns, and the numbers that every planner has."""

from dataclasses import dataclass, field
from math import inf

from jaxtyping import Float, Int
from torch import Tensor

from worldvae.planning.risk import RiskConfig
from worldvae.types import TensorTree


@dataclass(frozen=True)
class Plan(TensorTree):
    """An action sequence per problem, and the return that the model promises for it.

    `value` is the return of the plan itself if the planner imagined it; CEM, MPPI and `guided` return the centre of the
    elites, and as its value the (weighted) mean of their returns. `elites` are sequences that the planner tries again
    at the next step; `steps` is the number of steps that the model imagined for each problem.
    """

    actions: Float[Tensor, "batch horizon action"]
    value: Float[Tensor, "batch"]
    elites: Float[Tensor, "batch elite horizon action"] | None = None
    steps: Int[Tensor, "batch"] | None = None


@dataclass(frozen=True)
class PlanConfig:
    """Numbers that every planner has.

    Attributes:
        horizon: steps planned ahead.
        repeat: steps for which a planned action is held (the last one to the end of the horizon): a longer look with a
            smaller search. An agent that plans anew at every step may still change its action at every step.
        iterations: rounds of imagining and improving.
        discount: of future rewards. Agents read `discount`, `value` and `termination` to build their objective; `plan`
            itself reads `discount` only for the charge of disagreement.
        value: whether the critic's value is added at the horizon; a run's agents then take the critic's discount.
        termination: whether a plan earns nothing after a predicted termination; False scores plans as if no episode
            ended.
        max_ms: milliseconds, for all problems of a batch together, after which a planner returns its best plan so far,
            though no sooner than after one iteration (0: no limit). With a limit the plan depends on the machine.
        risk: how uncertain dreams are scored.
    """

    horizon: int = 15
    repeat: int = 1
    iterations: int = 3
    discount: float = 0.99
    value: bool = False
    termination: bool = True
    max_ms: float = 0.0
    risk: RiskConfig = field(default_factory=RiskConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount={self.discount} must lie between 0 and 1")
        if min(self.horizon, self.iterations, self.repeat) < 1:
            raise ValueError(
                f"horizon={self.horizon}, repeat={self.repeat} and iterations={self.iterations} must be at least 1"
            )
        if not self.max_ms >= 0:
            raise ValueError(f"max_ms={self.max_ms} must be a number of milliseconds, or 0 for no limit")

    @property
    def moves(self) -> int:
        """Number of actions in a plan, each held for `repeat` steps."""
        return -(-self.horizon // self.repeat)

    @property
    def breadth(self) -> int:
        """Largest number of action sequences that the planner imagines side by side."""
        raise NotImplementedError


@dataclass(frozen=True)
class SearchConfig(PlanConfig):
    """Numbers that every planner has that samples candidates.

    Attributes:
        candidates: plans sampled per iteration.
        elites: the best plans, to which the proposal is refitted.
        std: standard deviation before the first refit (actions live in [-1, 1]).
        min_std: lower bound of the refitted standard deviation.
        smoothing: weight of uniform classes in refitted one-hot blocks.
    """

    candidates: int = 100
    elites: int = 10
    std: float = 0.8
    min_std: float = 0.05
    smoothing: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.elites <= self.candidates:
            raise ValueError(f"elites={self.elites} must lie between 1 and candidates={self.candidates}")
        for name in ("std", "min_std"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name}={getattr(self, name)} must be a standard deviation, at least 0 and finite")
        if not 0 <= self.smoothing <= 1:
            raise ValueError(f"smoothing={self.smoothing} must lie between 0 and 1")

    @property
    def breadth(self) -> int:
        """Candidates of an iteration."""
        return self.candidates
