"""A training survives any exception, numbers that are not finite, other threads, and other trainings."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces

import worldvae as wv
from worldvae.config import load_config
from worldvae.errors import Diverged, UserError
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("unchecked")

SMALL = (Path(__file__).parents[1] / "small_run.txt").read_text().split()


def config(*overrides: str, id: str = "worldvae/Tiny-v0") -> RunConfig:
    return load_config(RunConfig, [{"env": {"id": id, "obs": "pixels"}}], [*SMALL, *overrides])


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        **trainer.run.model.state_dict(),
        **{f"ac.{k}": v for k, v in trainer.run.actor_critic.state_dict().items()},
    }


@pytest.mark.parametrize("error", [RuntimeError("out of paint"), SystemExit(0), MemoryError()])
def test_whatever_ends_a_training_it_is_saved_first(
    tmp_path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise error

    trainer = Trainer.begin(config("train.film_every=20"), tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("worldvae.training.trainer.held_out_dream", fail)
        with pytest.raises(type(error)):
            trainer.train()
    assert "The run was saved" in capsys.readouterr().err
    trainer.close()
    resumed = Trainer.resume(tmp_path / "run")
    assert resumed.updates == 20
    assert resumed.train()
    resumed.close()


def test_if_saving_fails_too_the_first_failure_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of paint")

    def full(*_: Any) -> None:
        raise UserError("the disk is full.")

    trainer = Trainer.begin(config("train.film_every=20"), tmp_path / "run")
    monkeypatch.setattr("worldvae.training.trainer.held_out_dream", fail)
    monkeypatch.setattr("worldvae.runs.checkpoint.save", full)
    with pytest.raises(RuntimeError, match="out of paint"):
        trainer.train()
    assert "could not be saved: the disk is full. Nothing was saved" in capsys.readouterr().err
    trainer.close()


DIVERGING = ("optimiser.learning_rate=1e18", "optimiser.warmup=0", "optimiser.clip=1e30")


@pytest.mark.parametrize("id", ["worldvae/Tiny-v0", "worldvae/TinyDiscrete-v0"])
def test_a_training_that_diverges_stops_and_is_not_saved_over_what_was_good(tmp_path: Path, id: str) -> None:
    good = Trainer.begin(config("train.steps=200", "env.obs=state", id=id), tmp_path / "run")
    assert good.train()
    saved = weights(good)
    good.close()
    bad = Trainer.resume(tmp_path / "run", ["train.steps=400", "train.checkpoint_every=1", *DIVERGING])
    with pytest.raises(Diverged, match=r"finite.*\. What was saved last is .*step_\d+; go on from it") as caught:
        bad.train()
    assert "\n" not in str(caught.value)
    for again in (bad.train, bad.save):
        with pytest.raises(Diverged):
            again()
    bad.close()
    mended = Trainer.resume(tmp_path / "run", ["optimiser.learning_rate=1e-4", "optimiser.clip=100"])
    assert all(torch.equal(tensor, saved[name]) for name, tensor in weights(mended).items())
    assert mended.train()
    mended.close()


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path: Path) -> None:
    trainer = Trainer.begin(config("train.steps=40"), tmp_path / "run")
    assert trainer.train()
    with torch.no_grad():
        next(trainer.run.actor_critic.parameters()).fill_(torch.nan)
    before = sorted((tmp_path / "run" / "checkpoints").iterdir())
    with pytest.raises(Diverged, match="are not finite"):
        trainer.save()
    assert sorted((tmp_path / "run" / "checkpoints").iterdir()) == before
    trainer._is_sound = lambda: True  # type: ignore[method-assign]  # as earlier versions did
    trainer.save()
    trainer.close()
    with pytest.raises(UserError, match="are not finite"):
        wv.load(tmp_path / "run")


def test_a_training_outside_of_the_main_thread(tmp_path: Path) -> None:
    trainer = Trainer.begin(config("train.steps=200"), tmp_path / "run")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(trainer.train).result()
    trainer.close()
    assert wv.load(tmp_path / "run").steps == 200


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_refused_training_changes_nothing(tmp_path: Path) -> None:
    """Before and after the first checkpoint, and whether or not the other training still runs."""
    first = Trainer.begin(config("train.steps=40"), tmp_path / "run")
    before = files(tmp_path)
    assert tmp_path / "run" / "config.yaml" in before
    with pytest.raises(UserError, match="is being trained by another process"):
        Trainer.begin(config("seed=1"), tmp_path / "run")
    with pytest.raises(UserError, match="is being trained by another process"):
        Trainer.resume(tmp_path / "run")
    assert files(tmp_path) == before
    assert first.train()
    first.close()
    before = files(tmp_path)
    with pytest.raises(UserError, match="already holds a run"):
        Trainer.begin(config("seed=1"), tmp_path / "run")
    assert files(tmp_path) == before
    assert wv.load(tmp_path / "run").steps == 40


class Stuck(gym.Env[Any, Any]):
    """Fails at the first reset, when everything else of a run has been created."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        raise RuntimeError("the door is locked")


gym.register("tests/Stuck-v0", entry_point=Stuck)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_an_environment_that_cannot_be_reset_leaves_the_folder_free(tmp_path: Path, mode: str) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="the door is locked"):
            Trainer.begin(config("env.obs=state", f"train.mode={mode}", id="tests/Stuck-v0"), tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_of_several_processes_one_trains(tmp_path: Path) -> None:
    """Started at the same moment with the same folder: all others are refused, and the winner's run can be opened."""
    context = multiprocessing.get_context("fork")
    outcomes, barrier = context.Queue(), context.Barrier(3)

    def begin(seed: int) -> None:
        barrier.wait()
        try:
            trainer = Trainer.begin(config(f"seed={seed}", "train.steps=40"), tmp_path / "run")
            outcomes.put(("trained" if trainer.train() else "stopped", seed))
            trainer.close()
        except UserError as error:
            outcomes.put((str(error), seed))

    processes = [context.Process(target=begin, args=(seed,)) for seed in range(3)]
    for process in processes:
        process.start()
    found = dict(outcomes.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    run = wv.load(tmp_path / "run")
    assert run.config.seed == found.pop("trained") and run.steps == 40
    assert all("another process" in refusal or "already holds a run" in refusal for refusal in found)


def test_a_run_that_cannot_begin_takes_back_only_what_it_wrote(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too small"):
        Trainer.begin(config("train.replay_bytes=10"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="too small"):
        Trainer.begin(config("train.replay_bytes=10"), tmp_path / "run")
    assert files(tmp_path) == {tmp_path / "run" / "notes.txt": b"mine"}
