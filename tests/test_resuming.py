"""Runs that are made longer: what may change, and how the step size goes on."""

from pathlib import Path

import pytest
import torch
from torch import nn

from worldvae.config import load_config
from worldvae.errors import UserError
from worldvae.learner import Optimiser, OptimiserConfig, risen_again
from worldvae.resuming import FIXED, changes_schedule, resumed_config
from worldvae.settings import RunConfig
from worldvae.trainer import Trainer

SMALL = (Path(__file__).parent / "small_run.txt").read_text().split()


def config(*overrides: str) -> RunConfig:
    return load_config(RunConfig, [{"env": {"id": "worldvae/Tiny-v0", "obs": "pixels"}}], [*SMALL, *overrides])


def train(trainer: Trainer) -> dict[str, torch.Tensor]:
    assert trainer.train()
    found = {**trainer.run.model.state_dict(), **trainer.run.actor_critic.state_dict()}
    trainer.close()
    return found


def test_a_run_made_longer_is_one_that_was_begun_longer(tmp_path: Path) -> None:
    level = (
        "optimiser.final=1",
        "actor_critic.optimiser.final=1",
        "optimiser.warmup=0",
        "actor_critic.optimiser.warmup=0",
    )
    train(Trainer(config(*level, "train.steps=200"), tmp_path / "run"))
    longer = train(Trainer.resume(tmp_path / "run", ["train.steps=280"]))
    at_once = train(Trainer(config(*level, "train.steps=280"), tmp_path / "whole"))
    assert all(torch.equal(longer[name], at_once[name]) for name in at_once)
    kept = Trainer.resume(tmp_path / "run")
    assert kept.run.config.train.steps == 280 and kept.run.steps == 280 and kept.finished
    kept.close()


def test_its_step_sizes_rise_to_the_longer_schedule(tmp_path: Path) -> None:
    first = Trainer(config("optimiser.final=0.1", "optimiser.warmup=4", "train.steps=200"), tmp_path / "run")
    train(first)
    rate = first.run.config.optimiser.learning_rate
    assert first.learner.optimiser.adam.param_groups[0]["lr"] == pytest.approx(0.1 * rate)
    second = Trainer.resume(tmp_path / "run", ["train.steps=2000"])
    optimiser = second.learner.optimiser
    found = []
    for _ in range(5):
        found.append(optimiser.learning_rate(0.1))
        optimiser.updates += 1
    assert found == pytest.approx([rate * (0.1 + (0.91 - 0.1) * risen) for risen in (0, 0.25, 0.5, 0.75, 1)])
    second.close()


def test_what_does_not_touch_the_schedule_leaves_the_step_sizes(tmp_path: Path) -> None:
    train(Trainer(config("optimiser.final=0.1", "train.steps=200"), tmp_path / "run"))
    before = Trainer.resume(tmp_path / "run")
    expected = before.learner.optimiser.learning_rate(0.5)
    before.close()
    after = Trainer.resume(tmp_path / "run", ["train.eval_episodes=3", "train.log_every=7"])
    assert after.learner.optimiser.learning_rate(0.5) == expected
    assert after.run.config.train.log_every == 7
    after.close()


@pytest.mark.parametrize("setting", FIXED)
def test_what_a_run_is_cannot_change(setting: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"was decided when the run in .* began.*train\.steps=N"):
        resumed_config(RunConfig, tmp_path / "config.yaml", [f"{setting}=1"])


@pytest.mark.parametrize("override", ["train={envs: 3}", "family=flow", "model.size=tiny", "env.kwargs.g=9"])
def test_nor_can_parts_of_it(override: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="train a new run"):
        resumed_config(RunConfig, tmp_path / "config.yaml", [override])


def test_which_settings_make_a_new_schedule() -> None:
    for override in ("train.steps=9", "train.updates=9", "optimiser.learning_rate=1", "actor_critic.optimiser.final=1"):
        assert changes_schedule(override)
    for override in ("train.eval_episodes=9", "train.ratio=1", "objective.free_nats=1", "cem.horizon=3"):
        assert not changes_schedule(override)


def test_a_refused_setting_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    train(Trainer(config("train.steps=40", "train.prefill=200"), tmp_path / "run"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for override in ("model.size=base", "train.steps=20", "train.stps=90"):
        with pytest.raises(UserError):
            Trainer.resume(tmp_path / "run", [override])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_smaller_step_size_takes_hold_over_the_warm_up() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimiser = Optimiser([weight], OptimiserConfig(learning_rate=1.0, warmup=2))
    for _ in range(4):
        optimiser.step(weight.sum())
    slower = Optimiser([weight], OptimiserConfig(learning_rate=0.5, warmup=2))
    slower.load_state_dict(risen_again(optimiser.state_dict()))
    slower.step(weight.sum())
    assert slower.adam.param_groups[0]["lr"] == pytest.approx(0.75)
    slower.step(weight.sum())
    assert slower.adam.param_groups[0]["lr"] == pytest.approx(0.5)
