"""The table of inference: a line for each method on each set of rows, and rows that are shifted as they are said to."""

import pytest
import torch

from worldvae.diagnostics import compare_inference, inference
from worldvae.posteriors.hmc import Samples
from worldvae.studies.inference_block import InferenceEffort, inference_block, shifted, whole_slices
from worldvae.types import Observation

pytestmark = pytest.mark.usefixtures("unchecked")

LITTLE = InferenceEffort(number=4, steps=(2, 3), draws=8, samples=16)


def test_every_method_is_measured_on_every_set_of_rows(make_model, make_batch) -> None:
    model = make_model(None, vector=3)
    rows = make_batch(model, 4, 5)
    sets = {"training": rows, "shifted": shifted(rows, brightness=3.0)}
    found = inference_block(model, sets, effort=LITTLE)
    assert [line.rows for line in found] == ["training"] * 5 + ["shifted"] * 5
    assert all(torch.isfinite(torch.tensor([line.method.bound, line.method.gap])).all() for line in found)
    again = inference_block(model, {"training": rows}, effort=LITTLE)
    assert [line.method.bound for line in found[:5]] == [line.method.bound for line in again]
    assert {"rows", "name", "bound", "gap", "milliseconds", "encoder_calls"} <= set(found[0].as_json())


def test_chains_that_reject_every_draw_do_not_fail(make_model, make_batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their Gaussian has a deviation of 0, and a chain with a single accepted draw has correlations of 1."""
    model = make_model(None, vector=3)
    rows = make_batch(model, 2, 4)

    def stuck(joint, start, steps, leapfrog, warmup, generator) -> Samples:
        draws = torch.randn(steps, *start.shape, generator=torch.Generator().manual_seed(1))
        draws[:, 0] = 0.1  # rejected all
        draws[:10, 1], draws[10:, 1] = 0.1, -0.2  # accepted one
        return Samples(draws, torch.zeros(len(start)), torch.ones(len(start)))

    monkeypatch.setattr(inference, "hmc", stuck)
    found = compare_inference(model, rows, torch.Generator().manual_seed(0), number=4, steps=(2,), draws=30, samples=16)
    assert all(torch.isfinite(torch.tensor([way.bound, way.gap])).all() for way in found)


def test_shifted_rows(make_model, make_batch) -> None:
    model = make_model(vector=2)
    rows = make_batch(model, 3, 6)
    moved = shifted(rows, brightness=0.1, noise=0.0)
    frames = rows.observation.pixels.float()
    assert moved.observation.pixels.dtype == torch.uint8
    torch.testing.assert_close(moved.observation.pixels.float(), (frames + 25.5).clamp(max=255), atol=0.6, rtol=0.0)
    spread = rows.observation.vector.flatten(0, 1).std(dim=0, correction=0)
    torch.testing.assert_close(moved.observation.vector, rows.observation.vector + 0.1 * spread)
    assert torch.equal(moved.action, rows.action) and torch.equal(moved.reward, rows.reward)
    noisy, same = shifted(rows), shifted(rows)
    assert torch.equal(noisy.observation.pixels, same.observation.pixels)
    grey = type(rows)(
        Observation(torch.full((50, 10, 1, 8, 12), 0.5)),
        *(torch.zeros(50, 10) for _ in range(2)),
        rows.termination,
        rows.is_first,
    )
    kicked = shifted(grey, brightness=0.0, noise=0.05).observation.pixels
    assert float(kicked.std()) == pytest.approx(0.05, rel=0.02) and float(kicked.mean()) == pytest.approx(0.5, abs=1e-3)


def test_slices_hold_rows_that_exist(make_model, make_batch) -> None:
    rows = make_batch(make_model(), 4, 9)
    lengths = torch.tensor([8, 3, 4, 8])
    assert whole_slices(rows, lengths, 5).reward.shape == (3, 5)
    assert torch.equal(whole_slices(rows, lengths, 99).reward, rows.reward[[0, 3]])
