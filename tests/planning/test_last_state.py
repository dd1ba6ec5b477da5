"""If nothing else is read, planners ask for the last state of dreams only, and find the same plans."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from worldvae.models.sequential_vae import SequentialVAE
from worldvae.planning import (
    CEMConfig,
    Draws,
    GradientConfig,
    GuidedConfig,
    ICEMConfig,
    Objective,
    PlanConfig,
    RiskConfig,
    TreeConfig,
    discounted_return,
    last_state_only,
    plan,
)
from worldvae.types import ActionLayout, Dream, State, VectorState

SEARCH: dict[str, Any] = {"horizon": 3, "candidates": 8, "elites": 3, "iterations": 2}
CONFIGS: dict[str, PlanConfig] = {
    "cem": CEMConfig(**SEARCH),
    "icem": ICEMConfig(**SEARCH),
    "guided": GuidedConfig(**SEARCH, proposals=4),
    "gradient": GradientConfig(horizon=3, iterations=2, restarts=2),
    "tree": TreeConfig(horizon=3, iterations=8),
}
RETURN = partial(discounted_return, discount=0.9, value=lambda state: -state.features[:, 0].abs())
LAYOUTS = {"tree": ActionLayout(0, (3,))}


class Walk:
    """x' = x + the sum of an action's entries, with reward -x'^2; it can return the last state only."""

    def __init__(self, layout: ActionLayout) -> None:
        self.action_layout = layout
        self.asked: list[bool] = []

    def imagine(self, start: State, actions: Tensor, *_: Any, last_only: bool = False, **__: Any) -> Dream:
        self.asked.append(last_only)
        x = start.features.unsqueeze(1) + (actions * torch.arange(1, actions.shape[-1] + 1)).cumsum(1).sum(-1, True) / 9
        states = VectorState(x[:, -1:] if last_only else x)
        return Dream(start, states, actions, -x[..., 0].square(), torch.full(x.shape[:2], 0.9))

    def disagreement(self, states: State) -> Tensor:
        return states.features[..., 0].abs()


class Forgetful(Walk):
    """The same world, written by a user who does not know this keyword."""

    def imagine(self, start: State, actions: Tensor, horizon: Any = None, generator: Any = None) -> Dream:  # type: ignore[override]
        return super().imagine(start, actions)


def guide(state: State, draws: Draws) -> Tensor:
    return torch.zeros(state.size, 2)


def solve(
    kind: type[Walk], name: str, objective: Objective = RETURN, risk: RiskConfig | None = None
) -> tuple[Walk, Any]:
    world = kind(LAYOUTS.get(name, ActionLayout(2)))
    config = type(CONFIGS[name])(**vars(CONFIGS[name]) | ({} if risk is None else {"risk": risk}))
    start, generator = VectorState(torch.tensor([[0.5], [-0.3]])), torch.Generator().manual_seed(0)
    return world, plan(world, start, objective, config, generator, guide=guide)


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_plan_is_the_same(name: str) -> None:
    world, found = solve(Walk, name)
    same, expected = solve(Forgetful, name)
    assert any(world.asked) == (name != "tree") and not any(same.asked)  # (a tree imagines single steps)
    assert torch.equal(found.actions, expected.actions) and torch.equal(found.value, expected.value)


def test_a_tree_gathers_no_more_than_the_last_state() -> None:
    seen: set[int] = set()

    def objective(dream: Dream) -> Tensor:
        seen.add(dream.states.features.shape[1])
        return RETURN(dream)

    solve(Walk, "tree", objective)
    assert seen == {1, 2, 3}
    seen.clear()
    solve(Walk, "tree", last_state_only(objective))
    assert seen == {1}


def test_all_states_are_there_for_whoever_may_read_them() -> None:
    def objective(dream: Dream) -> Tensor:
        assert dream.states.features.shape[1] == 3
        return -dream.states.features.abs().sum(dim=(1, 2))

    for risk in (RiskConfig(disagreement=1.0), RiskConfig(trust=0.5)):
        world, _ = solve(Walk, "cem", risk=risk)
        assert not any(world.asked)
    assert not any(solve(Walk, "cem", objective)[0].asked)
    assert all(solve(Walk, "cem", partial(last_state_only(lambda dream, x: x * dream.rewards[:, -1]), x=2))[0].asked)


@pytest.mark.parametrize("name", ["cem", "gradient", "guided"])
@pytest.mark.parametrize("memory", ["gru", "transformer"])
def test_a_plan_in_a_world_model_is_the_same(make_model: Callable[..., SequentialVAE], memory: str, name: str) -> None:
    model = make_model(memory=memory)
    start, plans = model.initial(2), []
    for objective in (RETURN, lambda dream: RETURN(dream)):
        generator = torch.Generator().manual_seed(0)
        plans.append(plan(model, start, objective, CONFIGS[name], generator, guide=guide, keys=[0, 1]))
    assert torch.equal(plans[0].actions, plans[1].actions) and torch.equal(plans[0].value, plans[1].value)
