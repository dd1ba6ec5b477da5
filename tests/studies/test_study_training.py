"""Training on recorded episodes: the budget, and that an interrupted training ends with the same weights."""

from itertools import count
from pathlib import Path

import pytest
import torch

from worldvae.models.world_model import WorldModel
from worldvae.runs.settings import RunConfig
from worldvae.studies.recorded import Recorded, record_episodes
from worldvae.studies.study_rows import ROWS
from worldvae.studies.study_tasks import Task
from worldvae.studies.study_training import OfflineTraining, build, layouts_of

CONFIG = {
    "env": {"id": "worldvae/LinearGaussian-v0", "obs": "state", "time_limit": 20},
    "model": {"size": "tiny", "hidden": 16},
    "train": {"batch": 4, "length": 8},
}
TASK = Task("linear", CONFIG, {})

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    return record_episodes(TASK.configure().env, 9)


def fresh(*settings: str) -> tuple[RunConfig, WorldModel]:
    config = TASK.configure((*ROWS["vae"].overrides, *settings))
    return build(config, layouts_of(config), 0)


def training(
    folder: Path, recorded: Recorded, operations: float | None = None, seconds: float = 60.0, *settings: str
) -> OfflineTraining:
    config, model = fresh(*settings)
    return OfflineTraining(model, config, recorded, folder, 0, seconds, operations)


def test_operations_are_counted_and_end_the_training(tmp_path: Path, recorded: Recorded) -> None:
    fitted = training(tmp_path, recorded)
    assert fitted.flops_per_update is not None and fitted.flops_per_update > 1e5
    limited = training(tmp_path / "limited", recorded, 4.5 * fitted.flops_per_update)
    assert limited.run()
    assert limited.spent.updates == 5 and limited.spent.share == 1.0 and limited.spent.seconds < 60


def test_counting_changes_no_weight(tmp_path: Path, recorded: Recorded) -> None:
    _, untouched = fresh()
    fitted = training(tmp_path, recorded)
    untouched.calibrate((rows := recorded.sample(64, 8, torch.Generator().manual_seed(0))).observation, rows.reward)
    for name, value in untouched.state_dict().items():
        torch.testing.assert_close(value, fitted.model.state_dict()[name], rtol=0, atol=0)


def test_an_interrupted_training_ends_with_the_same_weights(tmp_path: Path, recorded: Recorded) -> None:
    operations = 6.0 * (training(tmp_path / "count", recorded).flops_per_update or 0)
    whole = training(tmp_path / "whole", recorded, operations)
    assert whole.run()
    asked = count()
    first = training(tmp_path / "parts", recorded, operations)
    assert not first.run(stopped=lambda: next(asked) == 3)
    second = training(tmp_path / "parts", recorded, operations)
    assert second.updates == 3 and second.spent.seconds > 0
    assert second.run() and second.spent.updates == whole.spent.updates == 6
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name
    assert not training(tmp_path / "parts", recorded, operations, 60.0, "optimiser.learning_rate=2e-3").updates


def test_seconds_end_a_training(tmp_path: Path, recorded: Recorded) -> None:
    fitted = training(tmp_path, recorded, None, 0.1)
    assert fitted.run() and fitted.spent.share == 1 and 0.1 <= fitted.spent.seconds < 0.5
    again = training(tmp_path, recorded, None, 0.1)
    assert again.finished and again.spent.updates == fitted.spent.updates
