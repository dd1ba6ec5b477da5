"""The protocols of models to plan with, and the objectives that score dreams."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.draws import Draws
from worldvae.types import Dream, State


@runtime_checkable
class Simulator(Protocol):
    """A model to plan with: the verb `imagine`. An analytic system, a latent model or a real simulator will do.

    If it also has an `action_layout`, `plan` needs no `layout`. If it is random it should be `Stochastic`. If its
    states are large, let `imagine` have a keyword `last_only`, as that of a `WorldModel`: planners that need the last
    state of a dream alone then ask for no other.
    """

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"],
        horizon: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Dream:
        """Roll forward from `start` with given actions."""
        ...


@runtime_checkable
class Stochastic(Protocol):
    """A simulator that takes its noise as an argument, so that each problem of a batch has noise of its own.

    (Planners also take a simulator that draws from the generator they hand to it; but its noise for a problem then
    depends on the other problems of the batch.)
    """

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Float[Tensor, "*shape noise"]:
        """Draw what `imagine` needs, for the shape (horizon, batch)."""
        ...

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"],
        horizon: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: Float[Tensor, "horizon batch noise"] | None = None,
    ) -> Dream:
        """Roll forward from `start` with given actions and given noise."""
        ...


@runtime_checkable
class Uncertain(Protocol):
    """A simulator that tells how far its predictions of a state disagree: where it has not learnt enough."""

    def disagreement(self, states: State) -> Float[Tensor, "*batch"]:
        """Return how far several predictions of each of `states` are apart; not negative, in any unit."""
        ...


@runtime_checkable
class Plural(Protocol):
    """A simulator of several members. A planner has each member dream of every candidate.

    Of the rows that belong to one problem, row i is dreamed by member i mod `members`: the dreams of a candidate follow
    one another.
    """

    members: int


Objective = Callable[[Dream], Float[Tensor, "batch"]]
"""From a dream to its return; higher is better, NaN counts as worst."""

Value = Callable[[State], Float[Tensor, "batch"]]
"""From states to the return that follows them."""

Guide = Callable[[State, Draws], Float[Tensor, "row action"]]
"""A policy that proposes actions: from states (the same number of rows for each problem) to action vectors."""


Marked = TypeVar("Marked", bound=Callable[..., Tensor])


def last_state_only(objective: Marked) -> Marked:
    """Mark an objective that reads actions, rewards and continuations of a dream, and of its states only the last.

    Models that can leave out the other states then do so.
    """
    objective.__dict__["last_state_only"] = True
    return objective


def reads_last_state_only(objective: Objective) -> bool:
    """Return whether an objective, or the function of which it is a `partial`, is marked by `last_state_only`."""
    inner = objective.func if isinstance(objective, partial) else objective
    return getattr(inner, "last_state_only", False) is True


@runtime_checkable
class GuideWithLogits(Protocol):
    """A guide that also gives the probabilities of classes: the tree search takes them as its prior."""

    def __call__(self, state: State, draws: Draws) -> Float[Tensor, "row action"]:
        """Propose actions."""
        ...

    def logits(self, state: State) -> Float[Tensor, "row class_"]:
        """Return a logit for every class of every one-hot block, in the order of the action vector."""
        ...


def first_steps(dream: Dream, steps: int) -> Dream:
    """Return the beginning of a dream."""
    if steps == dream.rewards.shape[1]:
        return dream
    cut = (slice(None), slice(steps))
    return Dream(dream.start, dream.states[cut], dream.actions[cut], dream.rewards[cut], dream.continuations[cut])


@last_state_only
def discounted_return(
    dream: Dream, discount: float, value: Value | None = None, termination: bool = True
) -> Float[Tensor, "batch"]:
    """Return sum_k discount^k (prod_{j<k} c_j) r_k: nothing is earned after a predicted termination.

    The reward that arrives with the terminal state itself still counts.

    Args:
        dream: `[batch, horizon]`.
        discount: of future rewards.
        value: the return that follows the dream's last state; default: 0.
        termination: False takes every c_j for 1.
    """
    continuations = dream.continuations if termination else torch.ones_like(dream.continuations)
    reached = torch.cumprod(discount * continuations, dim=1)
    weights = torch.cat([torch.ones_like(reached[:, :1]), reached[:, :-1]], dim=1)
    total = (dream.rewards * weights).sum(dim=1)
    return total if value is None else total + reached[:, -1] * value(dream.states[:, -1])


def check_returns(returns: object, rows: int) -> Tensor:
    """Return the returns of an objective, if they are one number for each row of the dream.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(returns, Tensor) and returns.shape == (rows,):
        return returns
    raise ValueError(
        f"the objective made {_described(returns)} of a dream of {rows} rows: let it return one number for each row, "
        "as discounted_return does of rewards and continuations of shape [row, horizon]"
    )


def check_guided(actions: object, shape: Sequence[int]) -> Tensor:
    """Return the actions of a guide, if they are one for each row.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(actions, Tensor) and actions.shape == tuple(shape):
        return actions
    raise ValueError(
        f"the guide proposed {_described(actions)} for {shape[0]} states: let it return an action vector of {shape[1]} "
        "entries for each"
    )


def _described(found: object) -> str:
    return f"a tensor of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
