"""Goals as objectives: their values at the goal, and that every problem has its own goal."""

import pytest
import torch
from torch import Tensor

from worldvae.planning import Landmarks, geodesic_distance, state_distance
from worldvae.types import Dream, VectorState


def dream(vectors: Tensor) -> Dream:
    """Return a dream with these states `[row, horizon, vector]`."""
    states, ones = VectorState(vectors), torch.ones(vectors.shape[:2])
    return Dream(states[:, 0], states, torch.zeros(*vectors.shape[:2], 1), 0 * ones, ones)


def straight(s: Tensor, goal: Tensor) -> Tensor:
    return (s - goal).norm(dim=-1)


def test_known_distances() -> None:
    goals = torch.tensor([[3.0, 4.0], [1.0, 0.0]])
    states = torch.zeros(4, 3, 2)  # two goals, two candidates each, three steps
    states[1] = goals[0]  # always at the first goal
    states[2, 2] = goals[1]  # at the second goal in the last step
    states[3] = goals[0]
    expected = [-15.0, 0.0, -2.0, -3 * 20**0.5]
    assert state_distance(straight, goals)(dream(states)).tolist() == pytest.approx(expected)


def test_what_of_a_state_is_compared_can_be_said() -> None:
    states = torch.tensor([[[0.0, 9.0], [1.0, 9.0]], [[2.0, 9.0], [2.0, 9.0]], [[5.0, 9.0], [4.0, 9.0]]])
    goals = torch.tensor([[1.0], [2.0], [3.0]])
    objective = state_distance(straight, goals, about=lambda state: state.features[..., :1])
    assert objective(dream(states)).tolist() == [-1.0, 0.0, -3.0]


def test_goals_must_be_shared_out_evenly() -> None:
    for rows in (1, 3):
        with pytest.raises(ValueError, match=f"{rows} dreams cannot be shared out among 2 goals"):
            state_distance(straight, torch.zeros(2, 2))(dream(torch.zeros(rows, 3, 2)))


def horseshoe(number: int = 200) -> Tensor:
    """Return points on three quarters of the unit circle: its ends are sqrt(2) apart, and 3 pi / 2 along the arc."""
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
    goal = horseshoe()[-1:]
    latent = horseshoe()[[0, 20, 100, 198]].unsqueeze(1)  # one step each, closer and closer along the arc
    along = geodesic_distance(Landmarks(horseshoe(), 4), goal)(dream(latent))
    assert bool((along.diff() > 0).all())
    assert not bool((state_distance(straight, goal)(dream(latent)).diff() > 0).all())
    assert float(along[0]) == pytest.approx(-1.5 * torch.pi, abs=0.03)
    assert float(along[3]) == pytest.approx(-float((latent[3, 0] - goal[0]).norm()), abs=1e-3)


def test_each_goal_has_its_own_ways_and_none_is_infinite() -> None:
    apart = torch.cat([horseshoe(), horseshoe() + 10.0])  # no path connects the horseshoes
    landmarks = Landmarks(apart, 4)
    assert bool(landmarks.ways(apart[:1])[0, 200:].isinf().all())
    found = geodesic_distance(landmarks, apart[[0, 399]])(dream(apart[[199, 300, 399, 0]].unsqueeze(1)))
    assert found.tolist() == pytest.approx([-1.5 * torch.pi, -3 * torch.pi, 0.0, -3 * torch.pi], abs=0.05)


def test_too_few_landmarks_are_refused() -> None:
    with pytest.raises(ValueError, match="8 landmarks cannot have 8 neighbours each"):
        Landmarks(torch.zeros(8, 2))
