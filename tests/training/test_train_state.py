"""The state of a training: a new run is resumed from the zero state; the effects of changed settings on the state."""

from pathlib import Path
from typing import Any

import pytest
import torch

from worldvae.config import load_config
from worldvae.runs.checkpoint import pack, unpack
from worldvae.runs.settings import RunConfig
from worldvae.training.train_state import TrainState
from worldvae.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("unchecked")

SMALL = (Path(__file__).parents[1] / "small_run.txt").read_text().split()


def config(*overrides: str) -> RunConfig:
    return load_config(RunConfig, [{"env": {"id": "worldvae/Tiny-v0", "obs": "pixels"}}], [*SMALL, *overrides])


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        **trainer.run.model.state_dict(),
        **{f"ac.{k}": v for k, v in trainer.run.actor_critic.state_dict().items()},
    }


@pytest.mark.parametrize("behaviour", ["inline", "process"])
def test_a_new_run_is_one_resumed_from_the_zero_state(tmp_path: Path, behaviour: str) -> None:
    settings = config(f"train.behaviour={behaviour}", "train.steps=200")
    whole = Trainer.begin(settings, tmp_path / "whole")
    first = Trainer.begin(settings, tmp_path / "parts")
    assert first.save().name == "step_00000000"
    first.close()
    second = Trainer.resume(tmp_path / "parts")
    assert (second.updates, second.credit, second.calibrated) == (0, 10.0, False)
    assert whole.train() and second.train()
    assert second.updates == whole.updates > 20
    before = weights(first)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name
    assert any(not torch.equal(tensor, before[name]) for name, tensor in weights(second).items())
    for one, other in ((whole.data, second.data), (whole.noise, second.noise)):
        assert torch.equal(one.get_state(), other.get_state())
    whole.close()
    second.close()


def test_the_zero_state_survives_a_checkpoint() -> None:
    zero = TrainState.zero(config("seed=3"), torch.device("cpu"))
    again = TrainState.from_checkpoint(unpack(*pack(zero.to_checkpoint())))
    assert pack(again.to_checkpoint())[1] == pack(zero.to_checkpoint())[1]
    drawn = [torch.rand(3, generator=torch.Generator().set_state(state.noise)) for state in (zero, again)]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], torch.rand(3, generator=torch.Generator().manual_seed(3)))


def test_the_model_is_calibrated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if no update is ever due, and if the run was interrupted."""
    trainer = Trainer.begin(config("train.pretrain=0", "train.ratio=0", "train.steps=140"), tmp_path / "run")
    asked: list[int] = []

    def count(*_: Any) -> None:
        asked.append(trainer.run.steps)

    monkeypatch.setattr(trainer.run.model, "calibrate", count)
    assert trainer.train() and trainer.updates == 0
    trainer.close()
    assert asked == [120]  # the end of the prefill
    trainer = Trainer.resume(tmp_path / "run", ["train.steps=160"])
    monkeypatch.setattr(trainer.run.model, "calibrate", count)
    assert trainer.train()
    trainer.close()
    assert asked == [120]


def optimiser(rate: float) -> dict[str, Any]:
    return {"updates": 7, "rate": rate, "rise": {"since": 0, "rate": 0.0}}


def test_what_changed_settings_do_to_the_state() -> None:
    """Each setting changes its own part of the state, and nothing else."""
    before = TrainState(
        **{
            **TrainState.zero(config(), torch.device("cpu")).to_checkpoint(),
            "optimiser": optimiser(0.1),
            "behaviour": {"kind": "inline", "optimisers": {"actor": optimiser(0.2)}},
            "collector": {"episodes": [4], "actions": [torch.ones(2, 1)], "returns": torch.ones(1), "carry": {}},
        }
    )
    same = before.under(config("train.log_every=7"))
    assert same.to_checkpoint() == before.to_checkpoint()
    longer = before.under(config("train.steps=800"))
    assert longer.optimiser is not None and longer.optimiser["rise"] == {"since": 7, "rate": 0.1}
    assert longer.behaviour is not None
    assert longer.behaviour["optimisers"]["actor"]["rise"] == {"since": 7, "rate": 0.2}
    assert longer.behaviour["kind"] == "inline" and longer.collector is before.collector
    assert longer.schedule["steps"] == 800
    other = before.under(config("train.explore=icem"))
    assert other.collector is not None and other.collector["episodes"] == [5] and other.collector["carry"] is None
    assert other.optimiser is before.optimiser and other.acting["explore"] == "icem"
