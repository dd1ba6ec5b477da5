"""One function for all planners; the type of the config chooses the planner."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.planning.cem import CEMConfig, cem
from worldvae.planning.clock import Clock
from worldvae.planning.core import Plan, PlanConfig
from worldvae.planning.draws import Draws
from worldvae.planning.gradient import GradientConfig, gradient
from worldvae.planning.guided import GuidedConfig, guided
from worldvae.planning.icem import ICEMConfig, icem
from worldvae.planning.mppi import MPPIConfig, mppi
from worldvae.planning.problems import Problems
from worldvae.planning.shapes import check_layout, check_previous, check_state
from worldvae.planning.shooting import ShootingConfig, shooting
from worldvae.planning.simulator import Guide, Objective, Simulator
from worldvae.planning.tree import TreeConfig, tree
from worldvae.types import ActionLayout, State

PLANNERS: dict[str, tuple[type[PlanConfig], Callable[[Problems, Any], Plan]]] = {
    "shooting": (ShootingConfig, shooting),
    "cem": (CEMConfig, cem),
    "icem": (ICEMConfig, icem),
    "mppi": (MPPIConfig, mppi),
    "gradient": (GradientConfig, gradient),
    "guided": (GuidedConfig, guided),
    "tree": (TreeConfig, tree),
}
"""Every planner by its name: the type of its config, and the function that plans."""


def register(name: str, config: type[PlanConfig], search: Callable[[Problems, Any], Plan]) -> None:
    """Add a planner: `plan` chooses it by the type of its config, and `Run.make_agent` by its name.

    Args:
        name: of the planner.
        config: the type of its config, which no other planner has.
        search: the function that plans, from the problems and a config of that type.

    Raises:
        ValueError: If there is a planner of that name or with that type of config.
    """
    if name in PLANNERS or config in [kind for kind, _ in PLANNERS.values()]:
        raise ValueError(f"there is a planner {name!r} or one with the config {config.__name__} already")
    PLANNERS[name] = config, search


def planner_name(config: PlanConfig) -> str:
    """Return the name of the planner that takes such a config.

    Raises:
        ValueError: If none does.
    """
    for name, (kind, _) in PLANNERS.items():
        if type(config) is kind:
            return name
    kinds = ", ".join(kind.__name__ for kind, _ in PLANNERS.values())
    raise ValueError(f"{config} is the config of no planner: give one of {kinds}")


def plan(
    model: Simulator,
    state: State,
    objective: Objective,
    config: PlanConfig,
    generator: torch.Generator | None = None,
    *,
    layout: ActionLayout | None = None,
    previous: Plan | None = None,
    keep: Float[Tensor, "batch"] | None = None,
    keys: Sequence[int] | None = None,
    guide: Guide | None = None,
) -> Plan:
    """Plan from every state of a batch at once.

    The plan for a state is the same alone and among others (see `Draws`), to the bit where the arithmetic of model and
    objective does not depend on the number of rows: it does not in sums and products by element, but a matrix product
    or a transcendental function may round its last bit otherwise when there are more rows. Then plans agree to rounding
    error, unless two candidates are as good as each other to rounding error, too.

    Args:
        model: imagines the consequences of actions.
        state: where each problem starts, `[batch]`.
        objective: from a dream of batch x candidates to its return; higher is better, NaN counts as worst.
        config: numbers of the planner; its type chooses the planner.
        generator: source of all randomness, on the device of the state.
        layout: shape of the action vector (default: `model.action_layout`).
        previous: the plan that this function returned a step before (warm start).
        keep: 1 where `previous` is of the same episode, 0 where another episode has begun (default: 1 everywhere).
        keys: a number for each problem; problems of different keys draw independently (default: all draw the same).
        guide: a policy, for planners that use one.

    Returns:
        Action sequences within the bounds, what the model promises for them, and how many steps it imagined.

    Raises:
        ValueError: If there is no planner for `config`, no layout, no guide or disagreement where the planner or its
            risk needs one, or a shape is wrong: of state, previous plan, `keep`, returns or the guide's actions.
    """
    name = planner_name(config)
    check_state(state)
    layout = layout or getattr(model, "action_layout", None)
    if layout is None:
        raise ValueError(f"{type(model).__name__} has no action_layout: give plan(..., layout=ActionLayout(...))")
    check_layout(layout)
    like = state.features
    if keep is None:
        keep = torch.ones(len(like), device=like.device)
    check_previous(previous, keep, len(like), layout)
    draws, clock = Draws(len(like), like, generator, keys), Clock(config.max_ms, like.device)
    found = Problems(model, state, objective, config, layout, draws, clock, previous, keep, guide)
    solved = PLANNERS[name][1](found, config)
    return replace(solved, steps=torch.full((len(like),), found.steps, device=like.device))
