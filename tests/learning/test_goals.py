"""The gate of goals: a model trained on random actions is used to plan towards pictures of both rooms."""

from pathlib import Path

import pytest

from worldvae.config import find_config, load_config
from worldvae.evaluation.reaching import GoalSuite
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

BAR, FLOOR = 0.8, 0.25
"""Share of held-out goals to reach; random actions reach few. The README claims 0.9 on 100 pairs. Here are only 32, and
another machine's rounding should not decide (0.9 was reached when this was written)."""


@pytest.mark.gate(seconds=195)
def test_goal_images_are_reached_in_two_rooms(tmp_path: Path) -> None:
    path = find_config("two_rooms")
    assert path is not None
    trainer = Trainer.begin(load_config(RunConfig, [path]), tmp_path / "run")
    assert trainer.train()
    trainer.close()
    suite = GoalSuite(trainer.run.config.env, 32, seed=1)
    found = suite.model(trainer.run, "icem", "geodesic").as_json()
    assert suite.random().reached.mean() <= FLOOR
    assert found["success"] >= BAR, found
