"""`worldvae compare`: families on one task, held against one another."""

import json
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.test_commands import SMALL, call, complain
from worldvae.comparison.families import bound
from worldvae.evaluation import held_out_rows
from worldvae.run import load

ARGUMENTS = ["--families", "dreamer,flow", "--minutes", "5", "--jobs", "2", "--episodes", "2"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared") / "tiny"
    # A categorical z leaves the family dreamer what it is, and does not fit a flow.
    overrides = [*SMALL, "model.latent=categorical", "train.steps=200"]
    assert call("compare", "tiny", *overrides, *ARGUMENTS, "--out", str(out), "--json") == 0
    return out


def test_a_row_for_every_family_and_the_reason_where_there_is_none(out: Path) -> None:
    found = json.loads((out / "comparison.json").read_text())
    good, bad = found["rows"]
    assert (good["family"], good["failed"]) == ("dreamer", None)
    assert good["environment_steps"] == 200 and good["updates"] > 0 and good["steps_per_second"] > 0
    assert good["bound_kind"] == "lower_bound" and math.isfinite(good["bound"])
    assert len(good["psnr"]) == len(found["psnr_copy_last"]) == 4
    assert bad["family"] == "flow" and "need latent=gaussian" in bad["failed"] and bad["ret"] is None
    assert found["random_mean"] > 0
    with Image.open(found["film"]) as film:
        assert getattr(film, "n_frames", 1) == 45


def test_a_comparison_goes_on_and_is_not_mixed_with_another(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = [*SMALL, "model.latent=categorical", "train.steps=200", "--out", str(out)]
    assert "seed=0" in complain(capsys, "compare", "tiny", *again, *ARGUMENTS, "--seed", "1")
    assert "Did you mean 'flow'" in complain(capsys, "compare", "tiny", *again, "--families", "flw")
    assert "--jobs" in complain(capsys, "compare", "tiny", *again, "--jobs", "0")
    assert "no config" in complain(capsys, "compare")


def test_the_bound_is_that_of_rows_that_exist(out: Path) -> None:
    run = load(out / "dreamer")
    rows, lengths = held_out_rows(run, 12, 3)
    shorter = lengths.clone()
    shorter[0] = 4
    whole, part = bound(run, rows, lengths, seed=0), bound(run, rows, shorter, seed=0)
    assert len(whole) == int((lengths + 1).clamp(max=12).sum())
    torch.testing.assert_close(part, torch.cat([whole[:5], whole[len(whole) // 3 :]]))
