"""Kinds of world models: a registered one is trained and opened by its name; a wrong name is a one-sentence error."""

from pathlib import Path

import pytest

import worldvae as wv
from worldvae.models.kinds import KINDS, new_model, register
from worldvae.runs.run import create
from worldvae.runs.settings import configure
from worldvae.types import ActionLayout, ObservationLayout

TASK = {"env": {"id": "worldvae/Tiny-v0", "obs": "state"}}
LAYOUTS = ObservationLayout(vector=3), ActionLayout(1)


class Other(wv.SequentialVAE):
    """Another kind of world model."""


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldvae.models.kinds.KINDS", known := dict(KINDS))
    monkeypatch.setattr("worldvae.training.behaviour.KINDS", known)


def test_a_run_is_of_the_kind_that_its_config_says(tmp_path: Path) -> None:
    register("other", Other)
    usual, other = (configure(TASK, ["model.size=tiny", *rest]) for rest in ([], ["model.kind=other"]))
    assert type(create(tmp_path / "usual", usual, *LAYOUTS).model) is wv.SequentialVAE
    assert type(create(tmp_path / "other", other, *LAYOUTS).model) is Other
    assert "kind: other" in (tmp_path / "other" / "config.yaml").read_text()


def test_a_kind_that_is_not_there_and_a_name_that_is_taken() -> None:
    accepted = ", ".join(KINDS)
    words = f"model.kind is 'sequential_vea', accepted: {accepted}. Did you mean 'sequential_vae'?"
    with pytest.raises(wv.UserError) as found:
        configure(TASK, ["model.kind=sequential_vea"])
    assert str(found.value) == words
    with pytest.raises(ValueError, match="accepted: sequential_vae"):
        new_model(*LAYOUTS, wv.WorldModelConfig(kind="gan"))
    with pytest.raises(ValueError, match="a kind of world model called sequential_vae exists already"):
        register("sequential_vae", Other)


def test_a_family_resets_the_kind_too() -> None:
    register("other", Other)
    assert configure(TASK, ["model.kind=other"]).model.kind == "other"
    assert configure({**TASK, "model": {"kind": "other"}}, ["family=rssm"]).model.kind == "sequential_vae"
