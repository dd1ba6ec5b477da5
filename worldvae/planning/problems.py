"""The problems that a planner solves, and what all planners share: noise, held actions, warm starts, doubt."""

from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.clock import Clock
from worldvae.planning.core import Plan, PlanConfig
from worldvae.planning.draws import Draws
from worldvae.planning.proposal import Proposal
from worldvae.planning.risk import aggregate, dreams_of, score_dreams
from worldvae.planning.simulator import (
    Guide,
    Objective,
    Simulator,
    Stochastic,
    check_guided,
    reads_last_state_only,
)
from worldvae.types import ActionLayout, Dream, State


@dataclass(frozen=True, eq=False)
class Problems:
    """A batch of planning problems on one model.

    Attributes:
        model: imagines the consequences of actions.
        state: where each problem starts, `[batch]`.
        objective: from a dream of batch x candidates to its return; higher is better, NaN counts as worst.
        config: horizon, steps for which an action is held, and how uncertain dreams are scored.
        layout: shape of the action vector.
        draws: source of all randomness.
        clock: ends the search when its time is over.
        previous: the previous plans (warm start).
        keep: 1 where `previous` is of the same episode, 0 where another episode has begun.
        guide: a policy that proposes actions.
    """

    model: Simulator
    state: State
    objective: Objective
    config: PlanConfig
    layout: ActionLayout
    draws: Draws
    clock: Clock
    previous: Plan | None
    keep: Float[Tensor, "batch"]
    guide: Guide | None
    _starts: dict[int, State] = field(default_factory=dict, repr=False)
    _imagined: list[int] = field(default_factory=list, repr=False)

    @cached_property
    def dreams(self) -> int:
        """Number of dreams of every candidate."""
        return dreams_of(self.model, self.config.risk)

    @property
    def steps(self) -> int:
        """Steps that the model has imagined for each problem so far: the cost of a plan on any machine."""
        return sum(self._imagined)

    @cached_property
    def last_only(self) -> bool:
        """Whether objective and risk read no state of a dream but the last."""
        return reads_last_state_only(self.objective) and not self.config.risk.asks_disagreement

    @cached_property
    def _can_leave_out(self) -> bool:
        """Whether the model can leave out the states that nothing reads."""
        return "last_only" in signature(self.model.imagine).parameters

    def uninformed(self, std: float) -> Proposal:
        """Return the proposal of a planner that knows nothing yet."""
        moves = self.config.moves
        return Proposal.uninformed(self.layout, self.draws.batch, moves, std, self.draws.device, self.draws.dtype)

    def warm_start(self, std: float) -> Proposal:
        """Return the first proposal: around the previous plan, where there is one, else uninformed."""
        proposal = self.uninformed(std)
        return proposal if self.previous is None else proposal.warm_start(self.shift(self.previous.actions), self.keep)

    def hold(self, moves: Float[Tensor, "*batch move action"]) -> Float[Tensor, "*batch horizon action"]:
        """Return the actions of all steps: each move is held for `repeat` of them."""
        if self.config.repeat == 1:
            return moves
        return moves.repeat_interleave(self.config.repeat, dim=-2)[..., : self.config.horizon, :]

    def shift(self, actions: Float[Tensor, "*batch horizon action"]) -> Float[Tensor, "*batch rest action"]:
        """Return the moves of the previous plan without the first, whose step has been taken."""
        return actions[..., 1 :: self.config.repeat, :]

    def imagine(self, starts: State, actions: Float[Tensor, "row horizon action"], *, last_only: bool = False) -> Dream:
        """Roll forward from the same number of rows for each problem, with noise that is each problem's own.

        With `last_only` the dream holds the last state alone, if the model can leave out the others.
        """
        self._imagined.append(actions.shape[0] // self.draws.batch * actions.shape[1])
        more: dict[str, Any] = {"last_only": True} if last_only and self._can_leave_out else {}
        if not (isinstance(self.model, Stochastic) and callable(self.model.noise)):  # (not a number of that name)
            return self.model.imagine(starts, actions, generator=self.draws.generator, **more)
        shape, draw = (actions.shape[1], len(actions) // self.draws.batch), self.model.noise
        noise = self.draws.each(lambda generator: draw(shape, generator), dim=1)
        return self.model.imagine(starts, actions, noise=noise.flatten(1, 2), **more)

    def repeated(self, number: int) -> State:
        """Return the start of every problem `number` times, `[batch x number]`."""
        if number not in self._starts:  # most planners ask for the same number in every iteration
            self._starts[number] = self.state.map(lambda x: x.repeat_interleave(number, dim=0))
        return self._starts[number]

    def returns(self, candidates: Float[Tensor, "batch sample move action"]) -> Float[Tensor, "batch sample"]:
        """Imagine candidates and return their scores; NaN becomes -inf."""
        rows = candidates if self.dreams == 1 else candidates.repeat_interleave(self.dreams, dim=1)
        starts, actions = self.repeated(rows.shape[1]), self.hold(rows).flatten(0, 1)
        return self.score(self.imagine(starts, actions, last_only=self.last_only))

    def score(self, dream: Dream) -> Float[Tensor, "batch sample"]:
        """Return the scores of candidates, from dreams in which those of one candidate follow one another."""
        risk, discount, problems = self.config.risk, self.config.discount, self.draws.batch
        scores = score_dreams(dream, self.model, self.objective, risk, discount, problems)
        return worst_if_nan(aggregate(worst_if_nan(scores.view(problems, -1, self.dreams)), risk))

    @torch.no_grad()
    def guided(self, number: int) -> Float[Tensor, "batch sample move action"]:
        """Return the actions of roll-outs in which the guide acts.

        Raises:
            ValueError: If there is no guide.
        """
        if self.guide is None:
            raise ValueError("a planner that is guided needs a policy: give plan(..., guide=...)")
        state, actions = self.repeated(number), []
        for left in reversed(range(self.config.moves)):
            actions.append(check_guided(self.guide(state, self.draws), (state.size, self.layout.size)))
            if left:
                held = self.hold(actions[-1].unsqueeze(1))
                state = self.imagine(state, held, last_only=True).states[:, -1]
        rows = torch.stack(actions, dim=1).to(self.draws.dtype)
        return rows.view(self.draws.batch, number, *rows.shape[1:])


def worst_if_nan(returns: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return numbers that can be ranked: NaN becomes -inf."""
    return returns.nan_to_num(nan=-torch.inf, posinf=torch.finfo(returns.dtype).max, neginf=-torch.inf)
