"""The mathematics of the tree search: the order of visits, completed values, the improved policy."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldvae.planning.gumbel import complete_values, considered_visits, gumbel, most_lacking, rescale_values

few = settings(max_examples=50, deadline=None)


def counts(actions: int, simulations: int) -> list[int]:
    """Return how often each action is visited, in falling order, if the first actions win every comparison."""
    visits = [0] * actions
    for needed in considered_visits(actions, simulations):
        visits[visits.index(needed)] += 1
    return sorted(visits, reverse=True)


def test_sequential_halving_visits_as_in_the_paper() -> None:
    """200 simulations, 16 actions: phases of 3, 6, 12 and 25 visits, and 3 more of each of the last two."""
    assert counts(16, 200) == [49] * 2 + [21] * 2 + [9] * 4 + [3] * 8
    assert counts(4, 16) == [6, 6, 2, 2]
    assert counts(16, 16) == [1] * 16  # fewer than one visit per phase: each is still visited once
    assert counts(16, 5) == [1] * 5 + [0] * 11
    assert considered_visits(1, 4) == [0, 1, 2, 3]
    assert considered_visits(2, 5) == [0, 0, 1, 1, 2]


@given(actions=st.integers(1, 40), simulations=st.integers(1, 200))
@few
def test_every_visit_is_possible_and_the_finalists_are_visited_equally(actions: int, simulations: int) -> None:
    found = counts(actions, simulations)  # raises if no action has been visited that often
    assert sum(found) == simulations
    assert actions == 1 or found[0] - found[1] <= 1


def test_values_are_completed_by_the_mixed_value() -> None:
    """By hand: the visited ones are 1 and 4 with probabilities 1/2 and 1/4, so 2 on average; 3 visits against raw 6."""
    logits = torch.tensor([0.5, 0.25, 0.25]).log() + 7
    values, visits, raw = torch.tensor([1.0, 4.0, 0.0]), torch.tensor([2.0, 1.0, 0.0]), torch.tensor(6.0)
    assert complete_values(values, visits, logits, raw, torch.tensor(1.0)).tolist() == pytest.approx(
        [1, 4, (6 + 3 * 2) / 4]
    )
    assert complete_values(values, visits, logits, raw, torch.tensor(0.0)).tolist() == pytest.approx([1, 4, 2])
    nothing = complete_values(0 * values, 0 * visits, logits, raw, torch.tensor(1.0))
    assert nothing.tolist() == [6, 6, 6]  # only the raw value is known
    assert complete_values(0 * values, 0 * visits, logits, raw, torch.tensor(0.0)).tolist() == [0, 0, 0]
    never = torch.tensor([-1e9, 0.0, 0.0])  # visited, although the prior never would
    assert complete_values(values, torch.tensor([1.0, 0.0, 0.0]), never, raw, torch.tensor(0.0)).isfinite().all()


def test_values_are_scaled_between_their_own_bounds() -> None:
    """By hand: 0.1 (50 + 2) = 5.2 for the best, 0 for the worst."""
    values, visits = torch.tensor([1.0, 4.0, 3.0]), torch.tensor([2.0, 1.0, 0.0])
    assert rescale_values(values, visits, 0.1, 50.0).tolist() == pytest.approx([0, 5.2, 5.2 * 2 / 3])
    assert torch.allclose(
        rescale_values(1e6 * values - 3e7, visits, 0.1, 50.0), rescale_values(values, visits, 0.1, 50.0), atol=1e-4
    )
    assert rescale_values(torch.full((3,), 7.0), visits, 0.1, 50.0).tolist() == [0, 0, 0]


def test_rounding_errors_are_no_differences_in_value() -> None:
    value = torch.tensor(1000.0)
    off = torch.stack([value, torch.nextafter(value, 2 * value)])
    assert (
        float(rescale_values(off, torch.ones(2), 0.1, 50.0).max()) < 5.1 / 8 + 1e-3
    )  # an eighth of a difference's weight


def test_visits_follow_the_improved_policy() -> None:
    """As often as the policy says, up to one visit."""
    logits, visits = torch.tensor([[0.0, 1.0, -1.0], [3.0, 0.0, 0.0]]), torch.zeros(2, 3)
    for _ in range(300):
        chosen = most_lacking(logits, visits, torch.zeros(2, 3))
        visits[torch.arange(2), chosen] += 1
    assert bool(((visits - 300 * torch.softmax(logits, dim=-1)).abs() <= 1).all())


def test_ties_are_broken_by_what_is_given_for_it() -> None:
    ties = torch.tensor([[0.0, 1e-6, 0.0]])
    assert most_lacking(torch.zeros(1, 3), torch.zeros(1, 3), ties).tolist() == [1]


def test_the_largest_of_logits_plus_noise_is_a_draw_from_their_softmax(generator: torch.Generator) -> None:
    number, probs = 20_000, torch.tensor([0.2, 0.5, 0.3])
    noise = gumbel(torch.rand(number, 3, generator=generator))
    drawn = Counter((probs.log() + noise).argmax(dim=1).tolist())
    for i, p in enumerate(probs.tolist()):
        assert drawn[i] / number == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / number))
    assert gumbel(torch.tensor([0.0, 1 - 2**-24])).isfinite().all()
