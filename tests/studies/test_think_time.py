"""The number of candidates that fit into a decision: a search over costs that grow, and real decisions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.studies.still_world import knowing
from worldvae.planning import ICEMConfig
from worldvae.studies.think_time import largest_within, think_time, with_candidates
from worldvae.types import Observation


@given(
    per_candidate=st.floats(0.001, 10.0),
    fixed=st.floats(0.0, 5.0),
    limit=st.floats(0.1, 1000.0),
    most=st.integers(2, 5000),
)
def test_the_largest_number_is_found_to_five_percent(
    per_candidate: float, fixed: float, limit: float, most: int
) -> None:
    asked = []

    def cost(number: int) -> float:
        asked.append(number)
        return fixed + per_candidate * number

    found, spent = largest_within(cost, limit, 2, most)
    assert len(asked) == len(set(asked)) <= 25 and max(asked) <= most
    if found == 0:
        assert cost(2) > limit and spent == cost(2)
    else:
        assert spent == cost(found) <= limit
        larger = found + max(1, found // 20)
        assert found == most or cost(min(larger, most + 1)) > limit or larger > most


def test_more_time_is_never_given_fewer_candidates() -> None:
    found = [largest_within(lambda n: 0.5 * n, limit, 2, 4096)[0] for limit in (0.5, 1.0, 2.0, 10.0, 33.0, 100.0)]
    assert found == sorted(found) and found[0] == 0 and found[1] == 2


def test_decisions_of_a_planner_are_timed() -> None:
    model, row = knowing(), Observation(vector=torch.zeros(1, 2))
    config = ICEMConfig(horizon=3, candidates=16, elites=4, iterations=2, max_ms=1.0)
    much = think_time(model, row, config, 10_000.0, repeats=1, most=64)
    assert much.candidates == 64 and 0 < much.milliseconds < 10_000
    assert much.config == ICEMConfig(horizon=3, candidates=64, elites=16, iterations=2)
    none = think_time(model, row, config, 1e-6, repeats=1)
    assert none.candidates == 0 and none.config is None and none.milliseconds > 1e-6


def test_the_ratio_of_elites_is_kept() -> None:
    config = ICEMConfig(candidates=64, elites=8)
    assert [with_candidates(config, n).elites for n in (2, 8, 33, 640)] == [1, 1, 4, 80]
    assert pytest.approx(config.decay) == with_candidates(config, 2).decay
