"""`diagnose` examines models without p(z | h) as far as the protocol goes, and gives the reason for everything else."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import matplotlib
import pytest
import torch

from tests.fake_model import FakeModel
from tests.models.test_every_kind import ACTION, SMALL, WORDS, rows
from worldvae.diagnostics import Diagnosis, Effort, diagnose, draw_page
from worldvae.models.kinds import new_model
from worldvae.models.world_model import WorldModel
from worldvae.runs.settings import configure
from worldvae.types import Batch, Observation, ObservationLayout

PIXELS, VECTOR = ObservationLayout((1, 16, 16)), ObservationLayout(vector=3)
LATENT = {"prior_kind", "collapse", "kl_per_unit", "kl_over_time", "surprise", "hole", "conditional_hole"}
LATENT |= {"gaps", "inference"}


def ask(model: WorldModel, seen: Batch, seed: int = 0, **kwargs) -> Diagnosis:
    valid = torch.ones_like(seen.is_first)
    draws = torch.Generator().manual_seed(seed)
    return diagnose(model, seen, valid, draws, context=2, horizon=3, **{"samples": 4, **kwargs})


def build(name: str, layout: ObservationLayout, *more: str) -> WorldModel:
    config = configure({"env": {"id": "worldvae/Tiny-v0"}}, [*WORDS[name], *SMALL, *more])
    model = new_model(layout, ACTION, config.model)
    for parameter in model.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.calibrate(rows(layout).observation, rows(layout).reward)
    model.updated()
    return model


@pytest.mark.parametrize("layout", [PIXELS, VECTOR], ids=["pixels", "vector"])
@pytest.mark.parametrize("name", ["jepa", "jepa_gru", "pixel_diffusion", "pixel_energy", "contrastive"])
def test_each_kind_is_examined_as_far_as_it_can_be(name: str, layout: ObservationLayout) -> None:
    model, seen = build(name, layout), rows(layout, size=4, length=8, second=0)
    found = ask(model, seen, truth=torch.randn(4, 8, 2), effort=Effort())
    assert {field.name for field in fields(found) if getattr(found, field.name) is None} == LATENT
    assert set(found.left_out) == LATENT  # and nothing is None without a reason
    assert all(type(model).__name__ in why for why in found.left_out.values())
    assert found.calibration is not None and found.calibration.coverage.shape == (3,)
    assert found.features.size == model.feature_size and found.features.max_std > 0
    drawn = "pixel" in name or name == "contrastive" or layout is VECTOR  # a JEPA draws only noise of vectors
    assert bool((found.calibration.spread > 1e-3).all()) == drawn
    plain = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert plain["collapse"] is None and plain["surprise"] is None and len(plain["probe"]) == 2
    again = ask(model, seen, truth=torch.randn(4, 8, 2))
    assert torch.equal(again.calibration.crps, found.calibration.crps) and again.features == found.features


def test_features_are_those_of_rows_that_exist() -> None:
    model, seen = build("jepa", VECTOR), rows(VECTOR, size=4, length=8, second=0)
    valid = torch.arange(8) < torch.tensor([8, 8, 6, 5]).unsqueeze(1)
    found = diagnose(model, seen, valid, torch.Generator().manual_seed(0), context=2, horizon=3, samples=4)
    features = model.observe(seen).posterior.features[valid].detach()
    assert found.features.median_std == pytest.approx(float(features.std(0, correction=0).median()), rel=1e-4)


def test_a_model_that_decodes_nothing_has_no_calibration() -> None:
    found = ask(build("jepa", PIXELS, "model.jepa.decoder=false"), rows(PIXELS, size=4, length=8, second=0))
    assert found.calibration is None and set(found.left_out) == LATENT | {"calibration"}
    assert found.left_out["calibration"].startswith("this JEPA decodes neither frames nor vectors")
    assert found.features.rank > 1


class Shifted(FakeModel):
    """Knows the world, whose vectors stay where they are, plus noise of 1; they are shown in units of 4, 0.5 and 1."""

    units = torch.tensor([4.0, 0.5, 1.0])

    def in_shown_units(self, states, observation):
        shown = states.features / self.units + 7
        return observation.vector / self.units + 7, shown

    def _after(self, states, action):
        return type(states)(states.features)


def test_a_model_that_knows_the_noise_is_calibrated(generator: torch.Generator) -> None:
    """Vectors are m in the rows that are observed, and N(m, 1) in those to predict, as the model says."""
    model = Shifted(VECTOR, ACTION)
    seen = rows(VECTOR, size=400, length=5, second=0)
    vectors = 5 * torch.randn(400, 1, 3, generator=generator).repeat(1, 5, 1)
    vectors[:, 2:] += torch.randn(400, 3, 3, generator=generator)
    found = ask(model, replace(seen, observation=Observation(vector=vectors)), samples=19).calibration
    assert found is not None
    # 31 or 32 starts with 3 entries: some 96 values at each horizon.
    unit = float((1 / model.units).square().mean().sqrt())
    assert found.spread.tolist() == pytest.approx([unit] * 3, rel=0.1)
    assert found.skill.tolist() == pytest.approx([unit] * 3, rel=0.3)
    assert float(found.coverage.mean()) == pytest.approx(0.9, abs=0.06)


def test_the_page_says_why_a_panel_is_empty(tmp_path: Path) -> None:
    found = ask(build("jepa", VECTOR), rows(VECTOR, size=4, length=8, second=0))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        draw_page(found, tmp_path / "page.svg", "a JEPA")
    drawn = (tmp_path / "page.svg").read_text()
    assert len(re.findall("n/a: a JEPA", drawn)) == 5  # KL, surprise, hole, gaps, inference
    assert "n/a: the environment shows no vector" in drawn and "effective rank" in drawn
