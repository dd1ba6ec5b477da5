"""What a planner is given to solve; bounds, noise, held actions, warm starts and doubt are seen to here, for all."""

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
from worldvae.planning.risk import dreams_of, judged, together
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
        config: how far is planned, for how long an action is held, and how what is uncertain is judged.
        layout: shape of the action vector.
        draws: source of all randomness.
        clock: how long planning may go on.
        previous: plans of the step before (warm start).
        keep: 1 where `previous` still holds, 0 where an episode began since.
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
        """How many dreams of every candidate there are."""
        return dreams_of(self.model, self.config.risk)

    @property
    def steps(self) -> int:
        """Steps that the model has imagined for each problem so far: what a plan costs, whatever the machine."""
        return sum(self._imagined)

    @cached_property
    def last_only(self) -> bool:
        """Whether nothing but the last state of a dream is read: neither by the objective nor by doubt."""
        return reads_last_state_only(self.objective) and not self.config.risk.asks_disagreement

    @cached_property
    def _can_leave_out(self) -> bool:
        """Whether the model can leave out the states that are not read."""
        return "last_only" in signature(self.model.imagine).parameters

    def wide(self, std: float) -> Proposal:
        """Return the proposal before anything is known."""
        moves = self.config.moves
        return Proposal.wide(self.layout, self.draws.batch, moves, std, self.draws.device, self.draws.dtype)

    def warm(self, std: float) -> Proposal:
        """Return the proposal to begin with: around the plan of the step before, where there is one."""
        wide = self.wide(std)
        return wide if self.previous is None else wide.warm(self.moved_on(self.previous.actions), self.keep)

    def held(self, moves: Float[Tensor, "*batch move action"]) -> Float[Tensor, "*batch horizon action"]:
        """Return the actions of all steps: each move is held for `repeat` of them."""
        if self.config.repeat == 1:
            return moves
        return moves.repeat_interleave(self.config.repeat, dim=-2)[..., : self.config.horizon, :]

    def moved_on(self, actions: Float[Tensor, "*batch horizon action"]) -> Float[Tensor, "*batch left action"]:
        """Return the moves that are left of the plan of the step before, now that its first step has been taken."""
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
        """Return the start of every problem, so many times, `[batch x number]`."""
        if number not in self._starts:  # most planners ask for the same number in every iteration
            self._starts[number] = self.state.map(lambda x: x.repeat_interleave(number, dim=0))
        return self._starts[number]

    def returns(self, candidates: Float[Tensor, "batch sample move action"]) -> Float[Tensor, "batch sample"]:
        """Return what candidates are worth in the model; whatever is not a number is the worst there is."""
        rows = candidates if self.dreams == 1 else candidates.repeat_interleave(self.dreams, dim=1)
        starts, actions = self.repeated(rows.shape[1]), self.held(rows).flatten(0, 1)
        return self.judge(self.imagine(starts, actions, last_only=self.last_only))

    def judge(self, dream: Dream) -> Float[Tensor, "batch sample"]:
        """Return what candidates are worth, the dreams of each of which follow one another."""
        earned = judged(dream, self.model, self.objective, self.config.risk, self.config.discount, self.draws.batch)
        earned = earned.view(self.draws.batch, -1, self.dreams)
        return worst_if_nan(together(worst_if_nan(earned), self.config.risk))

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
                held = self.held(actions[-1].unsqueeze(1))
                state = self.imagine(state, held, last_only=True).states[:, -1]
        rows = torch.stack(actions, dim=1).to(self.draws.dtype)
        return rows.view(self.draws.batch, number, *rows.shape[1:])


def worst_if_nan(returns: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return numbers that can be ranked: what is not one is the worst there is."""
    return returns.nan_to_num(nan=-torch.inf, posinf=torch.finfo(returns.dtype).max, neginf=-torch.inf)
