"""An ensemble of simulators: which member imagines which row, which noise members share, and their disagreement."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from worldvae.planning import (
    GuidedConfig,
    Plural,
    Proposal,
    RiskConfig,
    ShootingConfig,
    Simulator,
    SimulatorEnsemble,
    Stochastic,
    Uncertain,
    discounted_return,
    plan,
)
from worldvae.types import ActionLayout, Dream, State, VectorState


class Slide:
    """z' = z + slope a, with reward z'."""

    action_layout = ActionLayout(1)

    def __init__(self, slope: float) -> None:
        self.slope, self.rows = slope, 0

    def imagine(self, start: State, actions: Tensor, *_: Any, **__: Any) -> Dream:
        self.rows += len(actions)
        z = start.features.unsqueeze(1) + (self.slope * actions).cumsum(dim=1)
        return Dream(start, VectorState(z), actions, z[..., 0], torch.ones_like(z[..., 0]))


class Shaken(Slide):
    """The same, with noise in each step."""

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, 1, generator=generator)

    def imagine(self, start: State, actions: Tensor, *_: Any, noise: Tensor | None = None, **__: Any) -> Dream:
        assert noise is not None and noise.shape == (*actions.shape[1::-1], 1)
        return super().imagine(start, actions + noise.transpose(0, 1) / self.slope)


SUM = partial(discounted_return, discount=1.0)


def zero(rows: int) -> State:
    return VectorState(torch.zeros(rows, 1))


def test_it_is_all_that_a_planner_can_ask_for() -> None:
    for model in (SimulatorEnsemble([Slide(1.0), Slide(2.0)]), SimulatorEnsemble([Shaken(1.0), Shaken(2.0)])):
        assert all(isinstance(model, kind) for kind in (Simulator, Stochastic, Uncertain, Plural))
    assert not isinstance(Slide(1.0), Plural)
    assert repr(model) == "SimulatorEnsemble(Shaken, Shaken)"


def test_each_row_is_imagined_by_its_member_from_the_first_step_to_the_last() -> None:
    slopes = [1.0, 2.0, 4.0]
    model, actions = SimulatorEnsemble([Slide(s) for s in slopes]), torch.rand(7, 3, 1)
    dream = model.imagine(zero(7), actions)
    for row in range(7):
        expected = Slide(slopes[row % 3]).imagine(zero(1), actions[row : row + 1])
        assert torch.equal(dream.states.features[row : row + 1], expected.states.features)
        assert torch.equal(dream.rewards[row : row + 1], expected.rewards)
        assert torch.equal(dream.actions[row], actions[row])
    lonely = model.imagine(zero(1), actions[:1])  # fewer rows than members
    assert torch.equal(lonely.rewards, dream.rewards[:1])


def test_members_of_a_group_get_the_same_noise(generator: torch.Generator) -> None:
    """So that members with the same dynamics do not seem to disagree."""
    alike = SimulatorEnsemble([Shaken(1.0) for _ in range(3)])
    noise = alike.noise((4, 8), generator)
    assert noise.shape == (4, 8, 2) and noise[2, :, 0].tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert torch.equal(noise[:, :3, 1:], noise[:, :1, 1:].expand(-1, 3, -1))
    assert not torch.equal(noise[:, 0], noise[:, 3])
    dream = alike.imagine(zero(6), torch.zeros(6, 4, 1), generator=generator)
    assert float(alike.disagreement(dream.states).abs().max()) < 1e-6
    assert float(dream.rewards.abs().min()) > 0


def test_disagreement_is_the_spread_over_members_by_hand() -> None:
    model = SimulatorEnsemble([Slide(1.0), Slide(3.0)])
    dream = model.imagine(zero(4), torch.tensor([[1.0, 1.0], [1.0, 1.0], [0.0, 0.5], [0.0, 0.5]]).unsqueeze(-1))
    expected = [[2**0.5, 8**0.5]] * 2 + [[0.0, 0.5**0.5]] * 2  # two numbers at distance d: d / sqrt(2)
    torch.testing.assert_close(model.disagreement(dream.states), torch.tensor(expected))
    halved = SimulatorEnsemble(model.models, about=lambda states: states.features / 2)
    torch.testing.assert_close(halved.disagreement(dream.states), torch.tensor(expected) / 2)
    padded = SimulatorEnsemble(model.models, about=lambda s: torch.cat([s.features, 0 * s.features], dim=-1))
    torch.testing.assert_close(padded.disagreement(dream.states), torch.tensor(expected) / 2**0.5)
    with pytest.raises(ValueError, match="3 rows of states are not groups of 2"):
        model.disagreement(dream.states[:3])


def test_disagreement_has_a_gradient_where_there_is_none_of_it() -> None:
    model, actions = SimulatorEnsemble([Slide(1.0), Slide(3.0)]), torch.tensor([0.0, 0.0, 1.0, 1.0]).view(4, 1, 1)
    actions.requires_grad_()
    doubt = model.disagreement(model.imagine(zero(4), actions).states)
    (slope,) = torch.autograd.grad(doubt[::2].sum(), actions)
    assert slope[:2].flatten().tolist() == [0.0, 0.0]
    assert float(slope[2:].sum()) == pytest.approx(2**0.5)


@pytest.mark.parametrize("samples", [1, 3])
def test_every_member_dreams_of_every_candidate(samples: int) -> None:
    model = SimulatorEnsemble([Slide(1.0), Slide(-2.0), Slide(0.5)])
    config = ShootingConfig(horizon=1, candidates=5, risk=RiskConfig(samples=samples))
    found = plan(model, zero(2), SUM, config, torch.Generator().manual_seed(0))
    assert [member.rows for member in model.models] == [2 * 6 * samples] * 3  # the previous plan is a candidate, too
    torch.testing.assert_close(found.value, found.actions[:, 0, 0] * (1 - 2 + 0.5) / 3)
    worst = ShootingConfig(horizon=1, candidates=5, risk=RiskConfig(samples=samples, quantile=0.0))
    found = plan(model, zero(2), SUM, worst, torch.Generator().manual_seed(0))
    assert found.actions.flatten().tolist() == [0.0, 0.0]  # every other action is bad for some member


def test_a_guide_may_take_any_number_of_rows_and_plans_do_not_depend_on_the_batch() -> None:
    model = SimulatorEnsemble([Slide(1.0), Slide(3.0), Slide(0.5)])
    uninformed = partial(Proposal.uninformed, ActionLayout(1))
    config = GuidedConfig(horizon=2, candidates=20, elites=4, iterations=2, proposals=5, value=False)
    solve = partial(
        plan,
        model,
        objective=SUM,
        config=config,
        guide=lambda state, draws: (
            uninformed(draws.batch, 1, 0.1, torch.device("cpu")).sample(5, draws).flatten(0, 2) + 0.1 * state.features
        ),
    )
    start = VectorState(torch.randn(7, 1))
    every = solve(state=start, generator=torch.Generator().manual_seed(0))
    for i in (0, 6):
        alone = solve(state=start[i : i + 1], generator=torch.Generator().manual_seed(0))
        assert torch.equal(alone.actions[0], every.actions[i])


def test_a_mistake_is_one_sentence() -> None:
    with pytest.raises(ValueError, match="an ensemble of 1 cannot disagree: give at least 2"):
        SimulatorEnsemble([Slide(1.0)])
    with pytest.raises(ValueError, match="do not mix them"):
        SimulatorEnsemble([Slide(1.0), Shaken(1.0)])
