"""`worldvae study online`: families compared on one task."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.test_commands import SMALL, call, complain
from worldvae.evaluation.held_out import held_out_rows
from worldvae.models.parts import WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.runs.run import Run, load
from worldvae.studies import families
from worldvae.studies.families import bound, bound_kind
from worldvae.studies.trainings import Trainings, minutes_of
from worldvae.types import ActionLayout, ObservationLayout

ARGUMENTS = ["--families", "dreamer,flow", "--minutes", "60", "--jobs", "2", "--episodes", "2"]

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("compared") / "tiny"
    # A categorical z is what the family dreamer has anyway, and does not fit a flow.
    overrides = [*SMALL, "model.latent=categorical", "train.steps=200"]
    assert call("study", "online", "tiny", *overrides, *ARGUMENTS, "--out", str(out), "--json") == 0
    return out


def test_a_row_for_every_family_and_the_reason_where_there_is_none(out: Path) -> None:
    found = json.loads((out / "comparison.json").read_text())
    good, bad = found["rows"]
    assert (good["family"], good["failed"]) == ("dreamer", None)
    assert good["environment_steps"] == 200 and good["updates"] > 0 and good["steps_per_second"] > 0
    assert good["share"] == 1 and good["minutes"] == minutes_of(out / "dreamer")
    assert (good["bound_kind"], good["frames"]) == ("lower_bound", "gaussian") and math.isfinite(good["bound"])
    assert len(good["psnr"]) == len(found["psnr_copy_last"]) == 4
    assert bad["family"] == "flow" and "needs latent=gaussian" in bad["failed"]
    assert bad["ret"] is None and bad["bound_kind"] is None
    assert found["random_mean"] > 0
    with Image.open(found["film"]) as film:
        assert getattr(film, "n_frames", 1) == 45


def test_a_family_that_cannot_be_measured_costs_no_other(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    shutil.copytree(out / "dreamer", copy / "vamp")
    rest = [*SMALL, "model.latent=categorical", "train.steps=200", "--out", str(copy), "--json"]
    monkeypatch.setattr(families, "held_out_rows", broken_for("vamp", families.held_out_rows))
    capsys.readouterr()
    assert call("study", "online", "tiny", *rest, "--families", "vamp,dreamer", *ARGUMENTS[2:]) == 0
    bad, good = json.loads(capsys.readouterr().out)["rows"]
    assert bad["failed"] == "AssertionError: the action vector is not finite" and good["failed"] is None


def broken_for(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def either(run: Run, *arguments: int) -> Any:
        assert run.folder.name != name, "the action vector is not finite"
        return function(run, *arguments)

    return either


def test_a_comparison_is_not_mixed_with_another(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = [*SMALL, "model.latent=categorical", "train.steps=200", "--out", str(out)]
    for wrong, words in (
        ([*ARGUMENTS, "--seed", "1"], "other settings"),
        (["--families", "flw"], "Did you mean 'flow'"),
        (["--jobs", "0"], "--jobs"),
        (["--minutes", "inf"], "--minutes"),
        (["family=flow"], "family= does not apply"),
        (["--seeds", "2"], "--seeds"),
        (["device=cuda"], "not available"),
    ):
        assert words in complain(capsys, "study", "online", "tiny", *again, *wrong)
    assert "no config" in complain(capsys, "study", "online")
    assert "--minutes" in complain(capsys, "study", "digits", "--minutes", "3")
    assert "--seeds" in complain(capsys, "study", "linear", "--seeds", "0")
    assert "Missing command" in complain(capsys, "study")


def folder_of(out: Path, seconds: list[float], checkpoint: bool = True) -> Path:
    """Make the files of a killed training: a checkpoint at step 100, lines at 50, 100, ..., and half a line."""
    folder = out / "rssm"
    (folder / "checkpoints" / "step_00000100").mkdir(parents=True) if checkpoint else folder.mkdir(parents=True)
    lines = [json.dumps({"step": 50 * (i + 1), "time": second}) for i, second in enumerate(seconds)]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 2']))
    return folder


def test_what_was_trained_since_the_checkpoint_does_not_count(tmp_path: Path) -> None:
    assert minutes_of(folder_of(tmp_path, [60.0, 120.0, 590.0])) == 2.0
    assert minutes_of(folder_of(tmp_path / "other", [60.0, 120.0], checkpoint=False)) == 0.0


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collect the commands instead of running them."""
    seen: list[list[str]] = []

    class Process(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **_: object) -> None:
            seen.append(command[4:])
            self.returncode, self._child_created = 0, False

        def poll(self) -> int:
            return 0

    monkeypatch.setattr(subprocess, "Popen", Process)
    return seen


def test_an_interrupted_training_goes_on_for_what_is_left(tmp_path: Path, commands: list[list[str]]) -> None:
    trainings = Trainings("tiny", tmp_path, 10.0, 3, 1, ["model.hidden=32"])
    folder = folder_of(tmp_path, [60.0, 120.0, 590.0])
    assert trainings.run(["rssm"], tell=lambda _: None) == {"rssm": None}
    assert commands == [["--minutes", "8.0", "--resume", str(folder)]]
    assert trainings.run(["rssm"], tell=lambda _: None) == {"rssm": None}
    assert len(commands) == 1  # it has been trained for its full time


def test_a_training_without_checkpoint_starts_again(tmp_path: Path, commands: list[list[str]]) -> None:
    folder = folder_of(tmp_path, [60.0, 700.0], checkpoint=False)
    (folder / "leftover").touch()
    (tmp_path / "rssm" / "deeper").mkdir()
    trainings = Trainings("tiny", tmp_path, 10.0, 3, 2, ["model.hidden=32"])
    trainings._start("rssm")
    assert not folder.exists()
    assert commands[0][:2] == ["--minutes", "10.0"] and commands[0][2:6] == ["--out", str(folder), "--seed", "3"]
    assert commands[0][6:9] == ["tiny", "family=rssm", "train.behaviour=inline"] and "model.hidden=32" in commands[0]


def test_why_a_training_ended(tmp_path: Path) -> None:
    trainings = Trainings("tiny", tmp_path, 10.0, 3, 2, [])
    (tmp_path / "flow.log").write_text("training on cpu\nworldvae: no such thing.\n\n")
    assert (trainings._ended("flow", 2) or "").startswith("no such thing. (")
    assert (trainings._ended("flow", -9) or "").startswith("killed by SIGKILL (")


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, "lower_bound"),
        ({"prior": "flow_matching"}, "lower_bound"),
        ({"prior": "energy"}, "estimate"),
        ({"frames": "diffusion"}, "lower_bound"),
        ({"prior": "energy", "frames": "diffusion"}, "estimate"),
    ],
)
def test_the_kind_of_a_bound(settings: dict[str, str], kind: str) -> None:
    config = WorldModelConfig(size="tiny", **settings)  # type: ignore[arg-type]
    model = SequentialVAE(ObservationLayout((3, 16, 16), None), ActionLayout(1, ()), config)
    assert bound_kind(model) == kind
    assert (model.density_kind == "exact") == (not settings)


def test_the_bound_is_that_of_rows_that_exist(out: Path) -> None:
    run = load(out / "dreamer")
    rows, lengths = held_out_rows(run, 12, 3)
    shorter = lengths.clone()
    shorter[0] = 4
    whole, part = bound(run, rows, lengths, seed=0), bound(run, rows, shorter, seed=0)
    assert len(whole) == int((lengths + 1).clamp(max=12).sum())
    torch.testing.assert_close(part, torch.cat([whole[:5], whole[len(whole) // 3 :]]))
