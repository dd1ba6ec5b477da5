"""Proposals respect bounds, a warm start shifts the plan by one step, and rewards after the end do not count."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae.memory import LatentState
from worldvae.planning import Draws, Proposal, discounted_return, uniform_actions
from worldvae.types import ActionLayout, Dream

CPU = torch.device("cpu")
few = settings(max_examples=30, deadline=None)
# (continuous, categorical); the test builds the layout, because the type checker draws random numbers.
layouts = st.tuples(st.integers(0, 3), st.lists(st.integers(1, 4), max_size=3).map(tuple)).filter(any)
Numbers = tuple[int, tuple[int, ...]]


def valid(actions: Tensor, layout: ActionLayout) -> bool:
    box = actions[..., : layout.continuous]
    inside = bool(((box >= -1) & (box <= 1)).all())
    blocks = [actions[..., block] for block in layout.blocks]
    return inside and all(bool(((b == 0) | (b == 1)).all() and (b.sum(-1) == 1).all()) for b in blocks)


def dream(rewards: list[list[float]], continuations: list[list[float]]) -> Dream:
    size, horizon = len(rewards), len(rewards[0])
    states = LatentState(torch.zeros(size, horizon, 1), torch.zeros(size, horizon, 1))
    r, c = torch.tensor(rewards), torch.tensor(continuations)
    return Dream(states[:, 0], states, torch.zeros(size, horizon, 1), r, c)


@given(
    numbers=layouts, horizon=st.integers(1, 4), shift=st.floats(-5, 5), std=st.floats(0, 50), seed=st.integers(0, 99)
)
@few
def test_samples_and_modes_are_always_valid_actions(
    numbers: Numbers, horizon: int, shift: float, std: float, seed: int
) -> None:
    layout = ActionLayout(*numbers)
    draws = Draws(2, torch.zeros(2), torch.Generator().manual_seed(seed))
    uninformed = Proposal.uninformed(layout, 2, horizon, std, CPU)
    mean = uninformed.mean.clone()
    mean[..., : layout.continuous] += shift
    for proposal in (uninformed, Proposal(layout, mean, uninformed.std)):
        samples = proposal.sample(5, draws)
        assert samples.shape == (2, 5, horizon, layout.size)
        assert valid(samples, layout)
        assert proposal.mode().shape == (2, horizon, layout.size)
        assert valid(proposal.mode(), layout)


@given(numbers=layouts, shape=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 99))
@few
def test_uniform_actions_are_valid_in_any_shape(numbers: Numbers, shape: list[int], seed: int) -> None:
    layout = ActionLayout(*numbers)
    actions = uniform_actions(layout, tuple(shape), CPU, torch.Generator().manual_seed(seed))
    assert actions.shape == (*shape, layout.size)
    assert valid(actions, layout)
    assert torch.equal(actions, uniform_actions(layout, tuple(shape), CPU, torch.Generator().manual_seed(seed)))


def test_uniform_actions_are_uniform(generator: torch.Generator) -> None:
    number = 20_000
    actions = uniform_actions(ActionLayout(1, (4,)), (number,), CPU, generator)
    assert abs(float(actions[:, 0].mean())) < 4 * math.sqrt(1 / 3 / number)
    assert float(actions[:, 0].square().mean()) == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / number))
    assert bool(((actions[:, 1:].mean(0) - 0.25).abs() < 4 * math.sqrt(0.25 * 0.75 / number)).all())


def test_samples_have_the_moments_of_the_proposal(generator: torch.Generator) -> None:
    layout = ActionLayout(1, (3,))
    proposal = Proposal(layout, torch.tensor([[[0.3, 0.2, 0.5, 0.3]]]), torch.tensor([[[0.1]]]))
    samples = proposal.sample(20_000, Draws(1, torch.zeros(1), generator))[0, :, 0]
    assert bool(((samples.mean(0) - proposal.mean[0, 0]).abs() < 4 * samples.std(0) / math.sqrt(20_000)).all())
    assert float(samples[:, 0].std()) == pytest.approx(0.1, rel=4 / math.sqrt(40_000))


def test_warm_start_shifts_by_one_step_and_is_reset_where_an_episode_began() -> None:
    layout = ActionLayout(1, (2,))
    uninformed = Proposal.uninformed(layout, 2, 3, 0.5, CPU)
    assert uninformed.mean[0].tolist() == [[0.0, 0.5, 0.5]] * 3
    actions = torch.tensor([[[0.1, 1.0, 0.0], [0.2, 0.0, 1.0], [0.3, 1.0, 0.0]]]).expand(2, 3, 3)
    warm = uninformed.warm_start(actions[:, 1:], torch.tensor([1.0, 0.0]), trust=0.8)
    expected = torch.tensor([[0.2, 0.1, 0.9], [0.3, 0.9, 0.1], [0.0, 0.5, 0.5]])
    assert torch.allclose(warm.mean[0], expected)
    assert torch.equal(warm.mean[1], uninformed.mean[1])
    assert torch.equal(warm.std, uninformed.std)


@given(numbers=layouts, horizon=st.integers(1, 4), seed=st.integers(0, 99))
@few
def test_a_warm_proposal_still_holds_probabilities(numbers: Numbers, horizon: int, seed: int) -> None:
    layout = ActionLayout(*numbers)
    generator = torch.Generator().manual_seed(seed)
    previous = uniform_actions(layout, (2, horizon), CPU, generator)
    warm = Proposal.uninformed(layout, 2, horizon, 0.5, CPU).warm_start(previous[:, 1:], torch.ones(2))
    for block in layout.blocks:
        assert torch.allclose(warm.mean[..., block].sum(-1), torch.ones(2, horizon), atol=1e-5)
    assert valid(warm.sample(3, Draws(2, torch.zeros(2), generator)), layout)


def test_known_return_with_terminations() -> None:
    ends = [[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.5, 0.5, 0.0]]
    found = discounted_return(
        dream([[1.0, 2.0, 4.0]] * 3, ends),
        0.5,
    )
    assert found.tolist() == [1 + 1 + 1, 1 + 1, 1 + 0.5 * 1 + 0.25 * 1]  # the last reward before the end still counts
    blind = discounted_return(dream([[1.0, 2.0, 4.0]] * 3, ends), 0.5, lambda states: torch.full((3,), 8.0), False)
    assert blind.tolist() == [1 + 1 + 1 + 1] * 3


@given(rewards=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=6), end=st.integers(0, 5))
@few
def test_what_comes_after_a_termination_does_not_matter(rewards: list[float], end: int) -> None:
    alive = [0.0 if k == end else 1.0 for k in range(len(rewards))]
    cut = rewards[: end + 1]
    expected = sum(0.9**k * r for k, r in enumerate(cut))
    assert float(discounted_return(dream([rewards], [alive]), 0.9)[0]) == pytest.approx(expected, abs=1e-4)
