"""`diagnose` works for models of every kind, and ignores rows that do not exist."""

import json

import pytest
import torch

from worldvae.diagnostics import Effort, diagnose
from worldvae.types import Batch


def ask(model, rows, valid=None, **kwargs):
    valid = torch.ones_like(rows.is_first) if valid is None else valid
    return diagnose(model, rows, valid, torch.Generator().manual_seed(0), context=2, horizon=3, samples=4, **kwargs)


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"latent": "categorical"},
        {"prior": "energy"},
        {"posterior": "flow"},
        {"prior": "mixture"},
        {"latent": "full"},
    ],
    ids=str,
)
def test_models_of_every_kind_can_be_asked(make_model, make_batch, choice: dict[str, str]) -> None:
    model = make_model((1, 8, 12), **choice)
    rows = make_batch(model, 6, 12)
    found = ask(model, rows, truth=torch.randn(6, 12, 2))
    assert len(found.kl_over_time) == 12 and len(found.surprise) == 6
    assert found.calibration.coverage.shape == (3,)
    assert found.probe is not None and len(found.probe) == 2
    factorises = not choice or choice == {"latent": "categorical"}
    assert (found.kl_per_unit is not None) == factorises
    if found.kl_per_unit is not None and not choice:
        assert sum(found.kl_per_unit) == pytest.approx(found.collapse.kl, rel=1e-4)
    assert found.features.size == model.feature_size and 0 < found.features.min_std <= found.features.max_std
    assert json.loads(json.dumps(found.as_json()))["prior_kind"] == model.prior.kind


@pytest.mark.parametrize("context", ["filter", "smooth"])
def test_rows_after_the_end_of_an_episode_are_ignored(make_model, make_batch, context: str) -> None:
    model = make_model(None, vector=3, context=context)
    if model.smoother is not None:
        torch.nn.init.normal_(model.smoother.out.weight)
    rows, other = make_batch(model, 6, 12), make_batch(model, 6, 12, seed=1)
    valid = torch.arange(12) < torch.tensor([12, 12, 12, 12, 6, 5]).unsqueeze(1)
    changed = Batch.cat([rows[:4], Batch.cat([rows[4:, :5], other[4:, 5:]], dim=1)], dim=0)
    changed.observation.vector[4, 5] = rows.observation.vector[4, 5]
    changed.reward[4, 5], changed.action[4, 4] = rows.reward[4, 5], rows.action[4, 4]
    a, b = ask(model, rows, valid), ask(model, changed, valid)
    assert a.collapse == b.collapse and a.kl_over_time == pytest.approx(b.kl_over_time, rel=1e-5)
    assert torch.allclose(a.calibration.crps, b.calibration.crps, atol=1e-6)
    assert torch.tensor(a.surprise).isnan().sum() == (~valid).sum()


EFFORT = Effort(slices=4, length=4, steps=2, samples=4, rows=4, refinements=(2,), draws=20)


@pytest.mark.parametrize(
    ("choice", "reasons"),
    [
        ({}, {}),
        ({"latent": "categorical"}, {"inference": "starts HMC from a Gaussian"}),
        ({"prior": "energy"}, {"gaps": "kind unnormalised", "inference": "kind unnormalised"}),
        ({"prior": "hierarchical"}, {"gaps": "ResidualPosterior", "inference": "ResidualPosterior"}),
    ],
    ids=str,
)
def test_gaps_and_inference_are_measured_or_the_reason_is_given(make_model, make_batch, choice, reasons) -> None:
    model = make_model(None, vector=3, **choice)
    found = ask(model, make_batch(model, 6, 12), effort=EFFORT)
    assert found.left_out.keys() == reasons.keys()
    assert all(reason in found.left_out[name] for name, reason in reasons.items())
    assert [found.gaps is None, found.inference is None] == [name in reasons for name in ("gaps", "inference")]
    plain = json.loads(json.dumps(found.as_json()))
    if not reasons:
        assert plain["gaps"]["filters"]["encoder"]["kind"] == "lower_bound" and plain["gaps"]["rows"] == 4
        assert [way["decoder_calls"] > 0 for way in plain["inference"]] == [False, True, True, True]
    without = ask(model, make_batch(model, 6, 12))
    assert without.left_out == {"gaps": "not asked", "inference": "not asked"}
    # All else is unchanged, except for the energy-based prior, whose estimates use its own random numbers.
    assert without.kl_over_time == pytest.approx(found.kl_over_time, rel=1e-2)


def test_short_episodes_have_no_calibration_and_few_rows_nothing(make_model, make_batch) -> None:
    model = make_model()
    found = ask(model, make_batch(model, 6, 4))
    assert found.calibration is None and found.as_json()["calibration"] is None
    assert found.left_out["calibration"] == "it needs episodes of 5 rows, and the longest has 4"
    with pytest.raises(ValueError, match=r"12 rows are too few.*more episodes"):
        ask(model, make_batch(model, 3, 4))
