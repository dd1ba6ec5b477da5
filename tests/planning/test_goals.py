"""Goals as objectives: what they are worth where the goal is, and that every problem has its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from worldvae.planning import (
    GOALS,
    CEMConfig,
    GradientConfig,
    Landmarks,
    geodesic_distance,
    goal_probability,
    goal_state,
    latent_distance,
    plan,
    state_distance,
)
from worldvae.types import Dream, Observation, State
from worldvae.world_model import WorldModel


def dream(latent: Tensor, memory: Tensor | None = None) -> Dream:
    """Return a dream with these latents `[row, horizon, latent]`."""
    memory = torch.zeros(*latent.shape[:2], 1) if memory is None else memory
    states, ones = State(memory, latent), torch.ones(latent.shape[:2])
    return Dream(states[:, 0], states, torch.zeros(*latent.shape[:2], 1), 0 * ones, ones)


def frames(model: WorldModel, number: int, seed: int = 0) -> Observation:
    assert model.observation_layout.pixels is not None
    shape = (number, *model.observation_layout.pixels)
    return Observation(torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)))


def test_known_distances() -> None:
    goals = State(torch.zeros(2, 1), torch.tensor([[3.0, 4.0], [1.0, 0.0]]))
    latent = torch.zeros(4, 3, 2)  # two goals, two candidates each, three steps
    latent[1] = goals.latent[0]  # is at the first goal all the time
    latent[2, 2] = goals.latent[1]  # comes to the second goal in the last step
    latent[3] = goals.latent[0]
    expected = [-15.0, 0.0, -2.0, -3 * 20**0.5]
    assert latent_distance(goals)(dream(latent)).tolist() == pytest.approx(expected)


def test_known_distances_of_true_states() -> None:
    memory = torch.tensor([[[0.0], [1.0]], [[2.0], [2.0]], [[5.0], [4.0]]])
    objective = state_distance(lambda s, g: (s - g).abs()[..., 0], torch.tensor([[1.0], [2.0], [3.0]]))
    assert objective(dream(torch.zeros(3, 2, 1), memory)).tolist() == [-1.0, 0.0, -3.0]


def test_goals_must_be_shared_out_evenly() -> None:
    goals = State(torch.zeros(2, 1), torch.zeros(2, 2))
    for rows in (1, 3):
        with pytest.raises(ValueError, match=f"{rows} dreams cannot be shared out among 2 goals"):
            latent_distance(goals)(dream(torch.zeros(rows, 3, 2)))


def test_the_state_of_a_goal_is_that_of_a_first_row(make_model: Callable[..., WorldModel]) -> None:
    model = make_model(memory="markov")
    goal = frames(model, 3)
    found = goal_state(model, goal)
    memory = model.memory(model.initial(3), torch.zeros(3, 2))
    q = model.posterior(memory, model.encode(goal))
    assert torch.allclose(found.latent, q.mean, atol=1e-6) and torch.allclose(found.memory, memory)
    assert torch.equal(goal_state(model, goal[1:2]).latent, goal_state(model, goal[1:2]).latent)


def test_the_probability_is_that_of_the_posterior_given_the_goal(make_model: Callable[..., WorldModel]) -> None:
    model = make_model()
    goal, generator = frames(model, 2), torch.Generator().manual_seed(0)
    memory, latent = (torch.randn(6, 4, size, generator=generator) for size in (model.memory.size, 4))
    found = goal_probability(model, goal)(dream(latent, memory))
    for row in range(6):
        embedding = model.encode(goal)[row // 3].expand(4, -1)
        expected = model.posterior(memory[row], embedding).log_prob(latent[row]).sum()
        assert found[row].item() == pytest.approx(expected.item(), rel=1e-4)
    # Nothing is likelier than the mode of q at every step.
    q = model.posterior(memory[:3].flatten(0, 1), model.encode(goal)[0].expand(12, -1))
    best = goal_probability(model, goal[:1])(dream(q.mean.view(3, 4, 4), memory[:3]))
    assert bool((best > found[:3]).all())


PARTS: list[dict[str, Any]] = [
    {"memory": "markov"},
    {"latent": "categorical", "memory": "block_gru"},
    {"prior": "hierarchical"},
    {"posterior": "flow"},
    {"context": "smooth"},
    {"stages": "two"},
    {"memory": "transformer"},
]


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "-".join(parts.values()))
@pytest.mark.parametrize("objective", list(GOALS))
def test_goals_are_planned_for_with_all_parts(
    make_model: Callable[..., WorldModel], parts: dict[str, Any], objective: str
) -> None:
    """Each of a batch is planned for its own goal: as it is alone, to rounding error."""
    model = make_model(**parts)
    goal, config = frames(model, 3), CEMConfig(horizon=3, candidates=12, elites=3, iterations=2)
    state = goal_state(model, frames(model, 3, seed=1))
    judge = GOALS[objective]
    every = plan(model, state, judge(model, goal), config, torch.Generator().manual_seed(0), keys=range(3))
    alone = plan(model, state[1:2], judge(model, goal[1:2]), config, torch.Generator().manual_seed(0), keys=[1])
    assert torch.isfinite(every.value).all()
    assert torch.allclose(every.actions[1], alone.actions[0], atol=1e-4)
    assert torch.allclose(every.value[1], alone.value[0], rtol=1e-3)


@pytest.mark.parametrize("objective", list(GOALS))
def test_goals_can_be_climbed_to(make_model: Callable[..., WorldModel], objective: str) -> None:
    model = make_model(memory="markov")
    state, judge = goal_state(model, frames(model, 2, seed=1)), GOALS[objective](model, frames(model, 2))
    values = [
        plan(model, state, judge, config, torch.Generator().manual_seed(0)).value
        for config in (GradientConfig(horizon=4, iterations=n, restarts=2) for n in (1, 30))
    ]
    assert bool((values[1] > values[0]).all())


def horseshoe(number: int = 200) -> Tensor:
    """Return points on three quarters of the unit circle, whose ends are sqrt(2) apart and 3 pi / 2 by the way."""
    angle = 1.5 * torch.pi * torch.linspace(0, 1, number)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_ways_follow_what_was_seen() -> None:
    landmarks = Landmarks(horseshoe(), neighbours=4)
    assert landmarks.reach < 0.1
    ends = landmarks.latents[[0, -1]]
    ways = landmarks.ways(ends)
    arc = 1.5 * torch.pi * torch.linspace(0, 1, 200)
    assert torch.allclose(ways, torch.stack([arc, arc.flip(0)]), atol=0.03)
    assert landmarks.nearest(0.9 * ends).tolist() == [0, 199]


def test_planning_along_what_was_seen_takes_the_long_way_and_not_the_gap() -> None:
    goal = State(torch.zeros(1, 1), horseshoe()[-1:])
    latent = horseshoe()[[0, 20, 100, 198]].unsqueeze(1)  # one step each, nearer and nearer by the way
    along = geodesic_distance(Landmarks(horseshoe(), 4), goal)(dream(latent))
    assert bool((along.diff() > 0).all())
    assert not bool((latent_distance(goal)(dream(latent)).diff() > 0).all())
    assert float(along[0]) == pytest.approx(-1.5 * torch.pi, abs=0.03)
    straight = (latent[3, 0] - goal.latent[0]).norm()
    assert float(along[3]) == pytest.approx(-float(straight), abs=1e-3)


def test_each_goal_has_its_own_ways_and_none_is_infinite() -> None:
    apart = torch.cat([horseshoe(), horseshoe() + 10.0])  # no way leads from one horseshoe to the other
    landmarks = Landmarks(apart, 4)
    assert bool(landmarks.ways(apart[:1])[0, 200:].isinf().all())
    goals = State(torch.zeros(2, 1), apart[[0, 399]])
    found = geodesic_distance(landmarks, goals)(dream(apart[[199, 300, 399, 0]].unsqueeze(1)))
    assert found.tolist() == pytest.approx([-1.5 * torch.pi, -3 * torch.pi, 0.0, -3 * torch.pi], abs=0.05)


def test_too_few_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="8 landmarks cannot have 8 neighbours each"):
        Landmarks(torch.zeros(8, 2))
