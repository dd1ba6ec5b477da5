"""Costs of a step: calls and operations are counted exactly, times are positive, and models stay as they are."""

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.studies.step_speed import calls_per_step, step_speed, training_flops

pytestmark = pytest.mark.usefixtures("unchecked")


def test_operations_of_a_model_of_two_linear_maps() -> None:
    rows, _, _ = walks(3, 8)
    found = step_speed(knowing(), rows, torch.Generator(), futures=5, horizon=3, budget=0.01)
    # A step multiplies (2 + 2) x 2; its reward and its continuation each multiply 2 x 2 heads.
    assert found.flops == 2 * (4 * 2 + 2 * 2 * 2)
    assert min(found.encode_ms, found.step_ms, found.steps_per_second, found.decoded_per_second or 0) > 0
    assert (found.encoded, found.futures) == (24, 5)


def test_updates_cost_three_times_their_forward_pass_and_change_nothing(make_model, make_batch) -> None:
    model = make_model()
    rows = make_batch(model, 2, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one = training_flops(model, rows, torch.Generator().manual_seed(0))
    assert one == training_flops(model, rows, torch.Generator().manual_seed(1))
    assert training_flops(model, make_batch(model, 4, 4), torch.Generator()) == pytest.approx(2 * one, rel=0.05)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("steps", "solver", "calls"), [(1, "euler", 1), (4, "euler", 4), (3, "heun", 5)])
def test_calls_of_a_network_that_is_called_for_every_step(make_model, steps: int, solver: str, calls: int) -> None:
    """Heun's method calls it twice a step, but once in the last."""
    model = make_model(None, vector=3, prior="flow_matching")
    model.prior.steps, model.prior.solver = steps, solver
    assert calls_per_step(model, model.initial(1), torch.Generator().manual_seed(0)) == calls


def test_one_pass_is_one_call(make_model) -> None:
    model = make_model(None, vector=3)
    assert calls_per_step(model, model.initial(1), torch.Generator().manual_seed(0)) == 1


def test_a_model_may_say_how_many_calls_it_makes() -> None:
    model = knowing()
    assert calls_per_step(model, model.initial(1), torch.Generator()) == 2  # heads: the reward, and the continuation
    model.calls_per_step = 7
    assert calls_per_step(model, model.initial(1), torch.Generator()) == 7
