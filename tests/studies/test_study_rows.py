"""Rows of the study of model kinds: settings that exist, what tuning draws, and equal sizes."""

import math
from typing import Any

import pytest
import torch

from worldvae.models.kinds import new_model
from worldvae.studies.study_cells import left_out
from worldvae.studies.study_jobs import equal_size
from worldvae.studies.study_rows import ROWS, Between, Row, rows_of
from worldvae.studies.study_size import STEP, TOLERANCE, Dialled, dial, planning_parameters
from worldvae.studies.study_tasks import EVERY_POINT, TASKS, Task
from worldvae.studies.study_training import layouts_of

STATE: dict[str, Any] = {"env": {"id": "worldvae/LinearGaussian-v0", "obs": "state"}, "model": {"size": "tiny"}}
PIXELS: dict[str, Any] = {
    "env": {"id": "worldvae/Tiny-v0", "obs": "pixels", "size": [16, 16]},
    "model": {"size": "tiny"},
}

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
@pytest.mark.parametrize("config", [STATE, PIXELS], ids=["state", "pixels"])
def test_every_setting_of_a_row_exists(row: Row, config: dict[str, Any]) -> None:
    """Of a row whose kind exists: its overrides, what tuning draws, its width, and what it plans with."""
    task = Task("a task", config, {})
    if (reason := left_out(task, row)) is not None:
        pytest.skip(reason)
    width = tuple(template.format(width=64, wider=96) for template in row.dial)
    for drawn in row.candidates(4):
        assert task.configure((*row.overrides, *width, *drawn, *row.planning)).model.kind


def test_tuning_begins_with_the_row_itself_and_draws_the_same_every_time() -> None:
    row = ROWS["vae"]
    first, *rest = row.candidates(5)
    assert first == () and row.candidates(5)[1:] == rest and len(set(rest)) == 4
    assert row.candidates(3)[1:] == rest[:2]
    rates = [float(one[0].split("=")[1]) for one in row.candidates(200)[1:]]
    spread = row.ranges["optimiser.learning_rate"]
    assert isinstance(spread, Between) and all(spread.low <= rate <= spread.high for rate in rates)
    middle = math.sqrt(spread.low * spread.high)
    assert 70 < sum(rate < middle for rate in rates) < 130  # uniform in the logarithm
    assert ROWS["jepa_sigreg"].candidates(3) != ROWS["jepa_vicreg"].candidates(3)


def test_every_row_tries_as_many_and_every_task_has_a_budget() -> None:
    assert rows_of(("random", "vae", "random")) == [ROWS["random"], ROWS["vae"]]
    for row in ROWS.values():
        assert row.learns == bool(row.ranges) and row.inference and row.geometry and row.integral
    assert all("medium" in task.budgets for task in TASKS.values())
    assert {name for name, task in TASKS.items() if "small" in task.budgets} == {"pendulum", "linear"}
    assert len({point.name for point in EVERY_POINT}) == 4
    small = TASKS["pendulum"].budget("small")
    assert small.limits(EVERY_POINT[0]) == (240.0, None)
    seconds, operations = small.limits(EVERY_POINT[3])
    assert (seconds, operations) == (2 * 4 * 240.0, 4 * small.flops)


def test_weights_in_use_are_those_that_are_not_of_decoders() -> None:
    task = Task("a task", STATE, {})
    config = task.configure(ROWS["vae"].overrides)
    model = new_model(*layouts_of(config), config.model, config.objective)
    assert isinstance(model, torch.nn.Module)
    expected = sum(p.numel() for name, p in model.named_parameters() if "decoders" not in name)
    assert 0 < expected < sum(p.numel() for p in model.parameters())
    assert planning_parameters(model) == expected


@pytest.mark.parametrize("reference", [1_000, 30_000, 500_000])
def test_the_dial_finds_the_closest_width(reference: int) -> None:
    def size(settings: tuple[str, ...]) -> int:
        width = int(settings[0].split("=")[1]) if settings else 10_000
        return 100 + 40 * width + width**2

    found = dial(size, ("width={width}",), reference)
    best = min((size((f"width={w}",)) for w in range(STEP, 2049, STEP)), key=lambda n: abs(n - reference))
    assert found.parameters == size(found.overrides) == best
    assert ("not of equal size" in found.sentence()) == (abs(best / reference - 1) > TOLERANCE)


def test_nothing_is_dialled_where_it_is_not_needed_or_not_possible() -> None:
    assert dial(lambda _: 103, ("width={width}",), 100) == Dialled((), 103, 100)
    lost = dial(lambda _: 300, (), 100)
    assert lost.overrides == () and "it has nothing to dial" in lost.sentence()
    assert dial(lambda s: len(s) * 1000, ("a={width}", "b=[{width},{wider}]"), 2000).overrides[1] == "b=[8,16]"


@pytest.mark.parametrize("name", ["vae_categorical", "latent_flow"])
def test_rows_are_of_equal_size(name: str) -> None:
    assert abs(equal_size(Task("a task", STATE, {}), ROWS[name]).off) <= TOLERANCE
