"""Runs that are made longer: which settings may change, and how step sizes continue."""

from pathlib import Path

import pytest
import torch
from torch import nn

from worldvae.config import dump_config, load_config
from worldvae.errors import UserError
from worldvae.networks.optimiser import Optimiser, OptimiserConfig, risen_again
from worldvae.runs.resuming import resumed_config
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("unchecked")

SMALL = (Path(__file__).parents[1] / "small_run.txt").read_text().split()


def config(*overrides: str) -> RunConfig:
    return load_config(RunConfig, [{"env": {"id": "worldvae/Tiny-v0", "obs": "pixels"}}], [*SMALL, *overrides])


def train(trainer: Trainer) -> dict[str, torch.Tensor]:
    assert trainer.train()
    found = {**trainer.run.model.state_dict(), **trainer.run.actor_critic.state_dict()}
    trainer.close()
    return found


def test_a_run_made_longer_equals_one_begun_longer(tmp_path: Path) -> None:
    level = (
        "optimiser.final=1",
        "actor_critic.optimiser.final=1",
        "optimiser.warmup=0",
        "actor_critic.optimiser.warmup=0",
    )
    train(Trainer.begin(config(*level, "train.steps=200"), tmp_path / "run"))
    longer = train(Trainer.resume(tmp_path / "run", ["train.steps=280"]))
    at_once = train(Trainer.begin(config(*level, "train.steps=280"), tmp_path / "whole"))
    assert all(torch.equal(longer[name], at_once[name]) for name in at_once)
    kept = Trainer.resume(tmp_path / "run")
    assert kept.run.config.train.steps == 280 and kept.run.steps == 280 and kept.finished
    kept.close()


def test_its_step_sizes_rise_to_the_longer_schedule(tmp_path: Path) -> None:
    first = Trainer.begin(config("optimiser.final=0.1", "optimiser.warmup=4", "train.steps=200"), tmp_path / "run")
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
    train(Trainer.begin(config("optimiser.final=0.1", "train.steps=200"), tmp_path / "run"))
    before = Trainer.resume(tmp_path / "run")
    expected = before.learner.optimiser.learning_rate(0.5)
    before.close()
    after = Trainer.resume(tmp_path / "run", ["train.eval_episodes=3", "train.log_every=7"])
    assert after.learner.optimiser.learning_rate(0.5) == expected
    assert after.run.config.train.log_every == 7
    after.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the config.yaml of a run."""
    path = tmp_path_factory.mktemp("run") / "config.yaml"
    dump_config(config("train.updates=90"), path)
    return path


@pytest.mark.parametrize(
    "override",
    [
        "env.size=[8,8]",
        "env.kwargs.axes=3",
        "model.size=base",
        "model[size]=base",
        "seed=3",
        "device=cuda",
        "train.prefill=1",
        "train.pretrain=1",
        "train.envs=7",
        "train={envs: 3}",
        "train.behaviour=process",
        "train.replay_bytes=30000000",
        "actor_critic.hidden=8",
        "actor_critic.layers=1",
        "actor_critic.bins=41",
        "actor_critic[gradient]=reinforce",
        "family=flow",
    ],
)
def test_what_defines_a_run_cannot_change(override: str, written: Path) -> None:
    with pytest.raises(UserError, match=r"was decided when the run in .* began.*train\.steps=N"):
        resumed_config(written, [override], steps=10, updates=10)


def test_a_setting_that_stays_is_no_change(written: Path) -> None:
    assert resumed_config(written, ["model.size=tiny"], 10, 10) == resumed_config(written, [], 10, 10)


@pytest.mark.parametrize("override", ["train.steps=20", "train.updates=20"])
def test_fewer_steps_than_already_taken_are_refused(override: str, written: Path) -> None:
    with pytest.raises(UserError, match="is less than the 30 that the run"):
        resumed_config(written, [override], steps=30, updates=30)
    assert resumed_config(written, ["train.log_every=3"], steps=10**9, updates=10**9)  # only overrides are checked


def test_only_a_new_schedule_lets_step_sizes_rise_and_only_once(tmp_path: Path) -> None:
    train(Trainer.begin(config("optimiser.final=0.1", "train.steps=200"), tmp_path / "run"))
    since = []
    for overrides in (["train.log_every=7"], ["train.steps=240"], [], ["train.steps=240"]):
        trainer = Trainer.resume(tmp_path / "run", overrides)  # closed before a checkpoint is written
        since.append(trainer.learner.optimiser.state_dict()["rise"]["since"])
        updates = trainer.updates
        trainer.close()
    assert since == [0, updates, updates, updates] and updates > 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["train.explore=random", "train.persistence=0.5"], ["train.explore=icem", "train.persistence=0"]),
        (["train.explore=icem"], ["icem.elites=3", "icem.horizon=4"]),
    ],
)
def test_another_agent_goes_on_with_fresh_episodes(before: list[str], after: list[str], tmp_path: Path) -> None:
    first = Trainer.begin(config(*before, "train.steps=140"), tmp_path / "run")
    train(first)
    second = Trainer.resume(tmp_path / "run", [*after, "train.steps=160"])
    assert second.collector.carry is None
    assert second.collector.episodes == [number + 1 for number in first.collector.episodes]
    train(second)


def test_an_agent_that_cannot_act_here_is_refused_and_not_stored(tmp_path: Path) -> None:
    train(Trainer.begin(config("train.steps=40"), tmp_path / "run"))
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    with pytest.raises(UserError, match="'tree' is not for this run"):
        Trainer.resume(tmp_path / "run", ["train.explore=tree", "train.steps=80"])
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    Trainer.resume(tmp_path / "run").close()


def test_a_refused_setting_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    train(Trainer.begin(config("train.steps=40", "train.prefill=200"), tmp_path / "run"))
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
