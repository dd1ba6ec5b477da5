"""Wrong shapes raise one-sentence errors that say what was given and what is right."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from worldvae.memory import LatentState
from worldvae.planning import (
    CEMConfig,
    GradientConfig,
    GuidedConfig,
    Plan,
    PlanConfig,
    RiskConfig,
    TreeConfig,
    discounted_return,
    plan,
)
from worldvae.types import ActionLayout, Dream, State, VectorState

RETURN = partial(discounted_return, discount=1.0)
SEARCH = CEMConfig(horizon=3, candidates=6, elites=2, iterations=1)
GUIDED = GuidedConfig(horizon=3, candidates=6, elites=2, iterations=1, proposals=2)


pytestmark = pytest.mark.usefixtures("unchecked")


class Walk:
    """x' = x + a, with reward -x'^2."""

    action_layout = ActionLayout(1)

    def imagine(
        self, start: State, actions: Tensor, horizon: int | None = None, generator: torch.Generator | None = None
    ) -> Dream:
        x = start.features.unsqueeze(1) + actions.cumsum(dim=1)[..., :1]
        return Dream(start, VectorState(x), actions, -x[..., 0].square(), torch.ones(x.shape[:2]))

    def disagreement(self, states: State) -> Tensor:
        return states.features[..., 0].abs()


def state(memory: tuple[int, ...] = (3, 1), latent: tuple[int, ...] = (3, 0)) -> State:
    return LatentState(torch.zeros(memory), torch.zeros(latent))


def refusal(given: Any, objective: Any = RETURN, config: PlanConfig = SEARCH, **more: Any) -> str:
    with pytest.raises(ValueError) as error:
        plan(Walk(), given, objective, config, torch.Generator().manual_seed(0), **more)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: torch.zeros(3, 1), "state is a Tensor, and plan takes a State"),
        (lambda: state((1,), (0,)), r"memory of shape (1,), latent of shape (0,), and plan takes a batch of states"),
        (lambda: state((1,), (0,)), "give state[None] for a single state"),
        (lambda: state((), ()), "give state[None] for a single state"),
        (lambda: state((3, 5, 1), (3, 5, 0)), "state[:, -1] for the last of each sequence"),
        (lambda: state((0, 1), (0, 0)), "state holds 0 rows, give at least one"),
        (lambda: state((3, 1), (2, 0)), "the same number of rows, one for each problem"),
        (lambda: replace(state(), past=torch.zeros(2, 4)), "past of shape (2, 4)"),
        (lambda: VectorState(torch.zeros(3, 1, dtype=torch.int64)), "torch.int64, and plan takes floats"),
    ],
)
def test_a_state_that_is_no_batch_of_states(given: Callable[[], Any], words: str) -> None:
    assert words in refusal(given())


def test_the_advice_of_the_message_works() -> None:
    single = state((1,), (0,))
    assert plan(Walk(), single[None], RETURN, SEARCH).actions.shape == (1, 3, 1)
    assert plan(Walk(), state((3, 5, 1), (3, 5, 0))[:, -1], RETURN, SEARCH).actions.shape == (3, 3, 1)


def test_a_plan_before_that_is_of_other_problems_or_other_actions() -> None:
    before = plan(Walk(), state(), RETURN, SEARCH)
    assert "actions of shape (2, 3, 1), and these are 3 problems" in refusal(state(), previous=before[:2])
    assert "with 1 entries an action" in refusal(state(), previous=Plan(torch.zeros(3, 3, 2), torch.zeros(3)))
    assert "shape (3, 1), and these are" in refusal(state(), previous=Plan(torch.zeros(3, 1), torch.zeros(3)))
    assert "previous is a Tensor: give the Plan" in refusal(state(), previous=before.actions)
    assert "keep has the shape (2,)" in refusal(state(), previous=before, keep=torch.ones(2))
    assert "2 keys were given for 3 problems" in refusal(state(), keys=[0, 1])


def test_no_action() -> None:
    assert "there is nothing to plan" in refusal(state(), layout=ActionLayout())


@pytest.mark.parametrize(
    "config",
    [
        SEARCH,
        replace(SEARCH, risk=RiskConfig(disagreement=1.0)),
        replace(SEARCH, risk=RiskConfig(trust=1.0)),
        GradientConfig(horizon=3, restarts=2, iterations=1),
    ],
    ids=["alone", "charged", "trusted", "gradient"],
)
@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (lambda dream: dream.rewards, "the objective made a tensor of shape ("),
        (lambda dream: dream.rewards.sum(), "the objective made a tensor of shape () of a dream of"),
        (lambda dream: 1.0, "the objective made a float of a dream of"),
    ],
)
def test_an_objective_that_makes_no_number_for_each_row(config: PlanConfig, objective: Any, words: str) -> None:
    assert words in refusal(state(), objective, config)


def test_a_tree_refuses_such_objectives_too() -> None:
    config = TreeConfig(horizon=2, iterations=2, guided=False)
    words = "the objective made a tensor of shape (3, 1) of a dream of 3 rows"
    start = VectorState(torch.zeros(3, 1))
    assert words in refusal(start, lambda dream: dream.rewards, config, layout=ActionLayout(0, (2,)))


@pytest.mark.parametrize(
    ("guide", "words"),
    [
        (lambda state, draws: torch.zeros(2, 1), "shape (2, 1) for 6 states"),
        (lambda state, draws: torch.zeros(state.size, 2), "an action vector of 1 entries"),
        (lambda state, draws: None, "the guide proposed a NoneType"),
    ],
)
def test_a_guide_that_proposes_no_action_for_each_state(guide: Callable[..., Any], words: str) -> None:
    assert words in refusal(state(), config=GUIDED, guide=guide)
