"""Checks that the arguments of `plan` fit together."""

from torch import Tensor

from worldvae.planning.core import Plan
from worldvae.types import ActionLayout, State


def check_state(state: State) -> None:
    """Raise unless there is a batch of states to plan from.

    Raises:
        ValueError: If it is no `State`, has no batch axis, other axes, no rows, or parts of different numbers of rows.
    """
    if not isinstance(state, State):
        raise ValueError(
            f"state is a {type(state).__name__}, and plan takes a State: give VectorState(x), or what a model makes of "
            "observations, as in model.observe(rows).posterior[:, -1]"
        )
    parts = state.tensors()
    shapes = ", ".join(f"{name} of shape {tuple(part.shape)}" for name, part in parts.items())
    if any(part.ndim == 0 for part in parts.values()) or state[:1].features.ndim != 2:
        raise ValueError(
            f"state holds {shapes}, and plan takes a batch of states, with features [batch, size]: give state[None] "
            "for a single state, state[:, -1] for the last of each sequence"
        )
    if len({len(part) for part in parts.values()}) > 1:
        raise ValueError(f"state holds {shapes}: give all its parts the same number of rows, one for each problem")
    if state.size == 0:
        raise ValueError("there is no problem to plan: state holds 0 rows, give at least one")
    if not state.features.is_floating_point():
        raise ValueError(
            f"state has features of {state.features.dtype}, and plan takes floats: give VectorState(x.float())"
        )


def check_layout(layout: ActionLayout) -> None:
    """Raise if actions have no entries.

    Raises:
        ValueError: If the action vector has no entries.
    """
    if layout.size == 0:
        raise ValueError(f"there is nothing to plan: {layout} is of no action, give one with at least one entry")


def check_previous(previous: Plan | None, keep: Tensor, problems: int, layout: ActionLayout) -> None:
    """Raise unless the previous plan is of these problems.

    Raises:
        ValueError: If it is no `Plan`, or it or `keep` is for another number of problems or other actions.
    """
    if keep.shape != (problems,):
        raise ValueError(f"keep has the shape {tuple(keep.shape)}: give one number for each of {problems} problems")
    if previous is None:
        return
    if not isinstance(previous, Plan):
        raise ValueError(
            f"previous is a {type(previous).__name__}: give the Plan that plan returned a step before, or None"
        )
    rows, size = previous.actions.shape[0], previous.actions.shape[-1]
    if previous.actions.ndim != 3 or (rows, size) != (problems, layout.size):
        raise ValueError(
            f"previous holds actions of shape {tuple(previous.actions.shape)}, and these are {problems} problems with "
            f"{layout.size} entries an action: give the plan of the same problems a step before, or None"
        )
