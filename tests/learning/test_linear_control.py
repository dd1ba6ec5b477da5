"""Planners with a learned model of the linear-quadratic world, compared with the optimal controller of that world."""

import pytest

from worldvae.studies.linear_control import PLANNER_CONFIGS, control, control_table
from worldvae.studies.linear_training import learn_to_control


@pytest.mark.gate(seconds=400)
def test_every_planner_on_a_learned_model_pays_at_most_15_per_cent_more_than_the_optimum_and_never_less() -> None:
    model = learn_to_control("stiff", updates=3000, seed=0)
    found = [control(model, "stiff", name, episodes=48) for name in PLANNER_CONFIGS]
    for result in found:
        assert result.optimum == pytest.approx(0.0531763, abs=1e-7)
        assert -3 * result.error < result.cost - result.optimum < 0.15 * result.optimum, control_table(found)
