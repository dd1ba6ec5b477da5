"""The parts of the gradient planner: its parametrisation, Adam against torch's, and restarts that escape a hill."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae.planning import GradientConfig, Plan, discounted_return, plan, uniform_actions
from worldvae.planning.gradient import _Adam, bounded, unbounded
from worldvae.types import ActionLayout, Dream, State, VectorState

few = settings(max_examples=30, deadline=None)
layouts = st.tuples(st.integers(0, 3), st.lists(st.integers(1, 4), max_size=3).map(tuple)).filter(any)


@given(numbers=layouts, seed=st.integers(0, 99), size=st.floats(0, 100))
@few
def test_any_numbers_stand_for_valid_actions(numbers: tuple[int, tuple[int, ...]], seed: int, size: float) -> None:
    layout = ActionLayout(*numbers)
    raw = size * torch.randn(2, 3, layout.size, generator=torch.Generator().manual_seed(seed))
    actions = bounded(raw, layout)
    assert bool((actions[..., : layout.continuous].abs() <= 1).all())
    for block in layout.blocks:
        assert set(actions[..., block].unique().tolist()) <= {0.0, 1.0}
        assert bool((actions[..., block].sum(-1) == 1).all())


@given(numbers=layouts, seed=st.integers(0, 99))
@few
def test_plans_start_where_they_are_told_to(numbers: tuple[int, tuple[int, ...]], seed: int) -> None:
    layout = ActionLayout(*numbers)
    actions = uniform_actions(layout, (2, 3), torch.device("cpu"), torch.Generator().manual_seed(seed))
    found = bounded(unbounded(actions, layout), layout)
    assert torch.allclose(found, actions, atol=0.011)  # the bound itself cannot be reached


def test_the_gradient_of_classes_is_that_of_the_softmax() -> None:
    layout, raw = ActionLayout(0, (4,)), torch.randn(5, 4).requires_grad_()
    worth = torch.randn(5, 4)
    (through,) = torch.autograd.grad((bounded(raw, layout) * worth).sum(), raw)
    (soft,) = torch.autograd.grad((torch.softmax(raw, dim=-1) * worth).sum(), raw)
    assert torch.allclose(through, soft)


def test_adam_is_torchs(generator: torch.Generator) -> None:
    ours, theirs = torch.zeros(7), torch.zeros(7, requires_grad=True)
    adam, oracle = _Adam(0.1), torch.optim.Adam([theirs], lr=0.1)
    for _ in range(20):
        slope = torch.randn(7, generator=generator)
        ours = ours + adam.step(slope)
        theirs.grad = -slope
        oracle.step()
    assert torch.allclose(ours, theirs, atol=1e-5)


class Hills:
    """The reward depends on the first action: a low hill at -0.6, a high one at 0.6, a valley between them."""

    action_layout = ActionLayout(1)

    def imagine(self, start: State, actions: Tensor, *_: Any, **__: Any) -> Dream:
        z = start.features.unsqueeze(1) + actions
        rewards = torch.exp(-50 * (z[..., 0] + 0.6).square()) + 2 * torch.exp(-50 * (z[..., 0] - 0.6).square())
        return Dream(start, VectorState(z), actions, rewards, torch.ones_like(rewards))


def test_restarts_find_the_higher_hill_and_a_warm_start_stays_on_it() -> None:
    state = VectorState(torch.zeros(1, 1))
    solve = partial(plan, Hills(), state, partial(discounted_return, discount=1.0))
    config = GradientConfig(horizon=2, restarts=12, iterations=40, discount=1.0)
    found = solve(config, torch.Generator().manual_seed(0))
    assert torch.allclose(found.actions, torch.full((1, 2, 1), 0.6), atol=0.05)
    assert float(found.value) == pytest.approx(4.0, abs=0.05)
    left = Plan(torch.full((1, 2, 1), -0.5), torch.zeros(1))
    for restarts, value in ((1, 3.0), (12, 4.0)):  # one step on each hill, or both on the higher one
        config = GradientConfig(horizon=2, restarts=restarts, iterations=40, discount=1.0)
        warm = solve(config, torch.Generator().manual_seed(0), previous=left)
        assert float(warm.value) == pytest.approx(value, abs=0.05)
    alone = GradientConfig(horizon=2, restarts=1, iterations=1, discount=1.0, learning_rate=1e-3)
    warm = solve(alone, torch.Generator().manual_seed(0), previous=found)
    assert float(warm.actions[0, 0, 0]) == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("numbers", [{"restarts": 0}, {"learning_rate": 0.0}])
def test_impossible_numbers_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(numbers))):
        GradientConfig(**numbers)  # type: ignore[arg-type]
