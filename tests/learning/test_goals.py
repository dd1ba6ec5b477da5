"""The gate of goals: a model of random play is planned with into rooms that it is shown a picture of."""

from pathlib import Path

import pytest

from worldvae.config import find_config, load_config
from worldvae.evaluation.reaching import GoalSuite
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

BAR, FLOOR = 0.8, 0.25
"""Of held-out goals, which must not come by themselves. What is claimed is 0.9, on 100 pairs; here are 32 (0.9 was
passed when this was written), and another machine's rounding should not decide."""


@pytest.mark.gate(seconds=270)
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
