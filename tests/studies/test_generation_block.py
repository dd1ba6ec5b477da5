"""Numbers of sampling steps: set in a copy, counted, and a model in one pass is measured as it is."""

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.studies.generation_block import generation_block, sampling_steps, with_steps

pytestmark = pytest.mark.usefixtures("unchecked")


def test_more_steps_mean_more_calls_of_the_same_weights(make_model, make_batch) -> None:
    model = make_model(prior="flow_matching")
    rows, lengths = make_batch(model, 3, 8), torch.tensor([7, 7, 6])
    before = sampling_steps(model)
    one, many = generation_block(model, rows, lengths, (1, 4), (1, 3, 9), 2, samples=2, budget=0.01)
    assert (one.steps, many.steps) == (1, 4) and one.calls < many.calls and one.ms_per_step > 0
    assert one.sampled.energy_score[:2] != many.sampled.energy_score[:2]
    assert one.errors.moving_psnr[2] is None and one.sampled.best_of[2] is None
    assert one.errors.moving_psnr_copy_last == many.errors.moving_psnr_copy_last
    assert sampling_steps(model) == before
    for name, value in with_steps(model, 2).state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_a_model_in_one_pass_has_a_single_line_and_no_steps() -> None:
    rows, lengths, _ = walks(4, 12)
    (only,) = generation_block(knowing(), rows, lengths, horizons=(1, 5), budget=0.01)
    assert only.steps is None and only.errors.mse == [pytest.approx(0.0, abs=1e-9)] * 2
    with pytest.raises(ValueError, match="FakeModel samples in one pass"):
        with_steps(knowing(), 2)
    with pytest.raises(ValueError, match="steps=0 must be at least 1"):
        with_steps(knowing(), 0)


def test_a_model_may_have_its_own_way() -> None:
    model, asked = knowing(), []
    model.with_steps = lambda steps: asked.append(steps) or model
    rows, lengths, _ = walks(4, 12)
    assert len(generation_block(model, rows, lengths, (1, 2), (1,), samples=2, budget=0.01)) == 2
    assert asked == [1, 2]
