"""Every model family, with any task: it learns, dreams, and is saved and loaded."""

from pathlib import Path

import pytest
import torch
import yaml

from worldvae.config import config_names, find_config
from worldvae.errors import UserError
from worldvae.runs.run import load
from worldvae.runs.settings import RunConfig, configure
from worldvae.training.trainer import Trainer

SMALL = (Path(__file__).parent / "small_run.txt").read_text().split()
TASK = {"env": {"id": "worldvae/Tiny-v0", "obs": "both"}}
FEW = ["train.steps=160", "train.prefill=120", "train.pretrain=4", "train.eval_episodes=1", "objective.free_nats=0"]


def config(family: str, *overrides: str) -> RunConfig:
    return configure(TASK, [*SMALL, *FEW, f"family={family}", *overrides])


@pytest.mark.parametrize("family", config_names("family"))
def test_every_family_learns_dreams_is_saved_and_comes_back(family: str, tmp_path: Path) -> None:
    trainer = Trainer.begin(config(family), tmp_path / "run")
    try:
        before = {name: value.clone() for name, value in trainer.run.model.state_dict().items()}
        assert trainer.train()
        model, batch = trainer.run.model, trainer.replay.sample(3, 6, trainer.data)
    finally:
        trainer.close()
    after = model.state_dict()
    still = [n for n, p in model.named_parameters() if p.numel() and torch.equal(before[n], after[n])]
    assert not still, f"these parameters learn nothing: {still}"
    again = load(tmp_path / "run").model
    actions = torch.rand(3, 5, model.action_layout.size) * 2 - 1
    dreams = []
    for one in (model, again):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            state = one.observe(batch, generator=generator).posterior[:, -1]
            dream = one.imagine(state, actions, generator=generator)
            frames = one.decode(dream.states).mean
        assert bool(torch.isfinite(dream.states.features).all()) and bool(torch.isfinite(frames).all())
        dreams.append(dream)
    if trainer.run.config.model.prior != "energy":  # its training draws its own random numbers
        assert torch.allclose(dreams[0].states.features, dreams[1].states.features, atol=1e-5)


def test_a_family_comes_after_the_task_and_before_other_overrides() -> None:
    task = find_config("pendulum")
    assert task is not None
    plain, other = (configure(task, overrides) for overrides in ([], ["model.memory=gru", "family=dreamer"]))
    assert (plain.model.latent, other.model.latent) == ("gaussian", "categorical")
    assert (other.model.memory, other.model.pixel_sigma) == ("gru", plain.model.pixel_sigma)


@pytest.mark.parametrize("first", config_names("family"))
def test_a_family_replaces_all_of_another(first: str) -> None:
    path = find_config(f"family/{first}")
    assert path is not None
    for second in config_names("family"):
        over = configure({**yaml.safe_load(path.read_text()), **TASK}, [f"family={second}"])
        assert over.model == configure(TASK, [f"family={second}"]).model, second


def test_a_family_file_says_only_in_what_it_differs() -> None:
    usual = configure(TASK, ["family=rssm"])
    for name in config_names("family"):
        path = find_config(f"family/{name}")
        assert path is not None
        text = yaml.safe_load(path.read_text())
        for word, value in text["model"].items():
            assert text.keys() == {"model"} and getattr(usual.model, word) != value, f"{name} need not say {word}"


def test_two_families_at_once_are_refused() -> None:
    with pytest.raises(UserError, match="family was given more than once"):
        config("flow", "family=vamp")


def test_a_family_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"family=drmer is not a model family: .*dreamer, .*Did you mean 'dreamer'"):
        config("drmer")
