"""Goals as objectives: what they are worth where the goal is, and that every problem has its own."""

import pytest
import torch
from torch import Tensor

from worldvae.planning import Landmarks, geodesic_distance, latent_distance, state_distance
from worldvae.types import Dream, State


def dream(latent: Tensor, memory: Tensor | None = None) -> Dream:
    """Return a dream with these latents `[row, horizon, latent]`."""
    memory = torch.zeros(*latent.shape[:2], 1) if memory is None else memory
    states, ones = State(memory, latent), torch.ones(latent.shape[:2])
    return Dream(states[:, 0], states, torch.zeros(*latent.shape[:2], 1), 0 * ones, ones)


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
