"""What every planner shares: the problems, what is returned, and the loop of the planners that sample and refit."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.clock import Clock
from worldvae.planning.draws import Draws
from worldvae.planning.proposal import Proposal, fit
from worldvae.planning.risk import RiskConfig, dreams_of, judged, together
from worldvae.planning.simulator import Guide, Objective, Simulator, Stochastic
from worldvae.types import ActionLayout, Dream, State, TensorTree


@dataclass(frozen=True)
class Plan(TensorTree):
    """A planned action sequence per problem, and the return the model promises for it.

    `elites` are further sequences that the planner wants to see again at the next step.
    """

    actions: Float[Tensor, "batch horizon action"]
    value: Float[Tensor, "batch"]
    elites: Float[Tensor, "batch elite horizon action"] | None = None


@dataclass(frozen=True)
class PlanConfig:
    """Numbers that every planner has.

    Attributes:
        horizon: steps planned ahead.
        iterations: rounds of imagining and improving.
        discount: of future rewards.
        value: whether the critic says what comes after the horizon; a run's agents then take the critic's discount.
        max_ms: milliseconds after which the best plan so far is returned, though no sooner than after one iteration
            (0: no limit). With a limit, how far a planner gets depends on the machine, and so does its plan.
        risk: how what the model is not sure of is judged.
    """

    horizon: int = 15
    iterations: int = 3
    discount: float = 0.99
    value: bool = False
    max_ms: float = 0.0
    risk: RiskConfig = field(default_factory=RiskConfig)

    def __post_init__(self) -> None:
        if not 0 <= self.discount <= 1:
            raise ValueError(f"discount={self.discount} must lie between 0 and 1")
        if self.horizon < 1 or self.iterations < 1:
            raise ValueError(f"horizon={self.horizon} and iterations={self.iterations} must be at least 1")
        if not self.max_ms >= 0:
            raise ValueError(f"max_ms={self.max_ms} must be a number of milliseconds, or 0 for no limit")

    @property
    def breadth(self) -> int:
        """Action sequences that are imagined side by side, at most."""
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

    @property
    def breadth(self) -> int:
        """Candidates of an iteration."""
        return self.candidates


@dataclass(frozen=True, eq=False)
class Problems:
    """A batch of planning problems on one model.

    Attributes:
        model: imagines the consequences of actions.
        state: where each problem starts, `[batch]`.
        objective: from a dream of batch x candidates to its return; higher is better, NaN counts as worst.
        layout: shape of the action vector.
        draws: source of all randomness.
        clock: how long planning may go on.
        previous: plans of the step before (warm start).
        keep: 1 where `previous` still holds, 0 where an episode began since.
        guide: a policy that proposes actions.
        risk: how what the model is not sure of is judged.
        discount: of disagreement that lies ahead.
    """

    model: Simulator
    state: State
    objective: Objective
    layout: ActionLayout
    draws: Draws
    clock: Clock
    previous: Plan | None
    keep: Float[Tensor, "batch"]
    guide: Guide | None
    risk: RiskConfig = field(default_factory=RiskConfig)
    discount: float = 1.0
    _starts: dict[int, State] = field(default_factory=dict, repr=False)

    @cached_property
    def dreams(self) -> int:
        """How many dreams of every candidate there are."""
        return dreams_of(self.model, self.risk)

    def wide(self, horizon: int, std: float) -> Proposal:
        """Return the proposal before anything is known."""
        return Proposal.wide(self.layout, self.draws.batch, horizon, std, self.draws.device, self.draws.dtype)

    def warm(self, horizon: int, std: float) -> Proposal:
        """Return the proposal to begin with: around the plan of the step before, where there is one."""
        wide = self.wide(horizon, std)
        return wide if self.previous is None else wide.warm(self.previous.actions, self.keep)

    def imagine(self, starts: State, actions: Float[Tensor, "row horizon action"]) -> Dream:
        """Roll forward from the same number of rows for each problem, with noise that is each problem's own."""
        if not isinstance(self.model, Stochastic):
            return self.model.imagine(starts, actions, generator=self.draws.generator)
        shape, draw = (actions.shape[1], len(actions) // self.draws.batch), self.model.noise
        noise = self.draws.each(lambda generator: draw(shape, generator), dim=1)
        return self.model.imagine(starts, actions, noise=noise.flatten(1, 2))

    def repeated(self, number: int) -> State:
        """Return the start of every problem, so many times, `[batch x number]`."""
        if number not in self._starts:  # most planners ask for the same number in every iteration
            self._starts[number] = self.state.map(lambda x: x.repeat_interleave(number, dim=0))
        return self._starts[number]

    def returns(self, candidates: Float[Tensor, "batch sample horizon action"]) -> Float[Tensor, "batch sample"]:
        """Return what candidates are worth in the model; whatever is not a number is the worst there is."""
        rows = candidates if self.dreams == 1 else candidates.repeat_interleave(self.dreams, dim=1)
        return self.judge(self.imagine(self.repeated(rows.shape[1]), rows.flatten(0, 1)))

    def judge(self, dream: Dream) -> Float[Tensor, "batch sample"]:
        """Return what candidates are worth, the dreams of each of which follow one another."""
        earned = judged(dream, self.model, self.objective, self.risk, self.discount, self.draws.batch)
        earned = earned.view(self.draws.batch, -1, self.dreams)
        return worst_if_nan(together(worst_if_nan(earned), self.risk))

    @torch.no_grad()
    def guided(self, number: int, horizon: int) -> Float[Tensor, "batch sample horizon action"]:
        """Return the actions of roll-outs in which the guide acts.

        Raises:
            ValueError: If there is no guide.
        """
        if self.guide is None:
            raise ValueError("a planner that is guided needs a policy: give plan(..., guide=...)")
        state, actions = self.repeated(number), []
        for _ in range(horizon):
            actions.append(self.guide(state, self.draws))
            state = self.imagine(state, actions[-1].unsqueeze(1)).states[:, -1]
        rows = torch.stack(actions, dim=1).to(self.draws.dtype)
        return rows.view(self.draws.batch, number, *rows.shape[1:])


def worst_if_nan(returns: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return numbers that can be ranked: what is not one is the worst there is."""
    return returns.nan_to_num(nan=-torch.inf, posinf=torch.finfo(returns.dtype).max, neginf=-torch.inf)


Refit = Callable[
    [Float[Tensor, "batch sample horizon action"], Float[Tensor, "batch sample"]],
    tuple[Proposal, Float[Tensor, "batch"]],
]
"""From candidates and their returns to the next proposal and the return it promises."""


@torch.no_grad()
def search(
    problems: Problems,
    config: SearchConfig,
    refit: Refit,
    *,
    momentum: float = 0.0,
    fixed: Float[Tensor, "batch sample horizon action"] | None = None,
) -> Plan:
    """Sample plans, dream their consequences, refit the proposal, repeat; return its mode.

    Args:
        problems: what to plan.
        config: numbers of the loop.
        refit: what makes one planner different from another.
        momentum: weight of the proposal before in the next one.
        fixed: candidates that take part in every iteration, in place of as many that would be sampled.
    """
    proposal = problems.warm(config.horizon, config.std)
    number = config.candidates - (0 if fixed is None else fixed.shape[1])
    for _ in problems.clock.rounds(config.iterations):
        candidates = proposal.sample(number, problems.draws)
        if fixed is not None:
            candidates = torch.cat([fixed, candidates], dim=1)
        refitted, value = refit(candidates, problems.returns(candidates))
        proposal = proposal.blend(refitted, momentum)
    return Plan(proposal.mode(), value)


def best_of(
    candidates: Float[Tensor, "batch sample horizon action"], returns: Float[Tensor, "batch sample"], number: int
) -> tuple[Float[Tensor, "batch elite horizon action"], Float[Tensor, "batch elite"]]:
    """Return the `number` best candidates and their returns, best first."""
    best, index = returns.topk(number, dim=1)
    return candidates.gather(1, index[:, :, None, None].expand(-1, -1, *candidates.shape[2:])), best


def fit_elites(
    candidates: Float[Tensor, "batch sample horizon action"],
    weights: Float[Tensor, "batch sample"],
    problems: Problems,
    config: SearchConfig,
) -> Proposal:
    """Fit a proposal to weighted candidates, with the config's lower bounds."""
    return fit(candidates, weights, problems.layout, config.min_std, config.smoothing)
