"""The commands on a joint-embedding model: train, resume exactly, act, plan, film, reach goals; and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

import worldvae as wv
from tests.test_commands import QUICK, call
from worldvae.config import load_config
from worldvae.models.jepa import JEPA
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("unchecked")

SMALL = (Path(__file__).parents[1] / "small_run.txt").read_text().split()
WORDS = [*QUICK, "model.kind=jepa", "model.jepa.latent=8", "model.jepa.rollout=3"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "jepa"
    assert call("train", "tiny", "--out", str(folder), *WORDS, "train.behaviour=process") == 0
    return folder


@pytest.mark.slow
def test_it_is_trained_with_behaviour_in_a_process_and_agents_act_on_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(wv.load(run).model, JEPA)
    agents = ["actor", "icem", "guided"]
    assert call("eval", str(run), "--agent", ",".join(agents), "--episodes", "1", "--json") == 0
    assert [row["agent"] for row in json.loads(capsys.readouterr().out)["agents"]] == agents


@pytest.mark.slow
def test_its_dreams_and_plans_are_filmed_and_diagnose_says_what_it_lacks(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("dream", str(run), "--horizon", "3", "--episodes", "1") == 0
    assert call("eval", str(run), "--agent", "icem", "--episodes", "1", "--plan-film") == 0
    assert list((run / "dreams").glob("*")) and list((run / "plans").glob("*"))
    capsys.readouterr()
    assert call("diagnose", str(run), "--episodes", "2") == 0
    words = capsys.readouterr().out
    assert "collapse: a JEPA has no q(z | h, e)" in words and "effective rank" in words and "steps ahead" in words


@pytest.mark.slow
def test_it_plans_towards_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in WORDS if not word.startswith("env.size")]
    words += ["env.obs=state", "env.time_limit=20", "model.jepa.predictor=gru"]
    assert call("train", "Pendulum-v1", "--out", str(tmp_path / "run"), *words) == 0
    capsys.readouterr()
    assert call("goals", str(tmp_path / "run"), "--pairs", "2", "--json") == 0
    assert {row["objective"] for row in json.loads(capsys.readouterr().out)["goals"]} >= {"none", "distance", "true"}


def trained(trainer: Trainer) -> dict[str, torch.Tensor]:
    assert trainer.train()
    found = {**trainer.run.model.state_dict(), **trainer.run.actor_critic.state_dict()}
    trainer.close()
    return found


def test_a_training_that_was_interrupted_goes_on_bit_by_bit(tmp_path: Path) -> None:
    """Weights, and the running averages of the norm, are those of a training in one piece."""
    words = [*SMALL, "model.kind=jepa", "model.jepa.latent=8", "optimiser.final=1", "actor_critic.optimiser.final=1"]
    words += ["optimiser.warmup=0", "actor_critic.optimiser.warmup=0", "model.jepa.predictor=gru"]
    words += ["train.prefill=80", "train.pretrain=4", "train.eval_episodes=0", "model.jepa.rollout=3"]

    def config(*more: str) -> RunConfig:
        return load_config(RunConfig, [{"env": {"id": "worldvae/Tiny-v0", "obs": "pixels"}}], [*words, *more])

    trained(Trainer.begin(config("train.steps=140"), tmp_path / "run"))
    longer = trained(Trainer.resume(tmp_path / "run", ["train.steps=160"]))
    at_once = trained(Trainer.begin(config("train.steps=160"), tmp_path / "whole"))
    assert all(torch.equal(longer[name], value) for name, value in at_once.items())
    assert float(at_once["projector.norm.batches"]) > 5
