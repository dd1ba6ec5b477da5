"""What a planner needs of a model, and how it judges what the model imagines."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.draws import Draws
from worldvae.types import Dream, State


@runtime_checkable
class Simulator(Protocol):
    """A model to plan with: the verb `imagine`. An analytic system, a latent model or a real simulator will do.

    If it also has an `action_layout`, planners need not be told one. If it is random it should be `Stochastic`.
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
    """A simulator whose randomness can be drawn beforehand, so that each problem of a batch is given its own.

    (One that draws from the generator it is handed is planned with, too; but what it draws for a problem then depends
    on the other problems of the batch.)
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


Objective = Callable[[Dream], Float[Tensor, "batch"]]
"""From a dream to its return; higher is better, NaN counts as worst."""

Value = Callable[[State], Float[Tensor, "batch"]]
"""What is earned from a state on."""

Guide = Callable[[State, Draws], Float[Tensor, "row action"]]
"""A policy that proposes actions: from states (the same number of rows for each problem) to action vectors."""


@runtime_checkable
class GuideWithLogits(Protocol):
    """A guide that also says how likely it finds each class: the tree search begins with what it finds likely."""

    def __call__(self, state: State, draws: Draws) -> Float[Tensor, "row action"]:
        """Propose actions."""
        ...

    def logits(self, state: State) -> Float[Tensor, "row class_"]:
        """Return a logit for every class of every one-hot block, in the order of the action vector."""
        ...


def discounted_return(dream: Dream, discount: float, value: Value | None = None) -> Float[Tensor, "batch"]:
    """Return sum_k discount^k (prod_{j<k} c_j) r_k: after a predicted termination nothing more is earned.

    The reward that arrives with the terminal state itself still counts.

    Args:
        dream: `[batch, horizon]`.
        discount: of future rewards.
        value: what is earned after the dream's last state; default: nothing.
    """
    reached = torch.cumprod(discount * dream.continuations, dim=1)
    weights = torch.cat([torch.ones_like(reached[:, :1]), reached[:, :-1]], dim=1)
    total = (dream.rewards * weights).sum(dim=1)
    return total if value is None else total + reached[:, -1] * value(dream.states[:, -1])
