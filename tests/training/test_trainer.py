"""Training end to end in the built-in world: the files it writes, bit-for-bit resuming, and failures it survives."""

import json
import signal
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import worldvae as wv
from worldvae.config import find_config, load_config
from worldvae.errors import UserError
from worldvae.runs.settings import RunConfig
from worldvae.training.behaviour import SeparateProcess
from worldvae.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("unchecked")

SMALL = (Path(__file__).parents[1] / "small_run.txt").read_text().split()


def config(*overrides: str, id: str = "worldvae/Tiny-v0") -> RunConfig:
    return load_config(RunConfig, [{"env": {"id": id, "obs": "pixels"}}], [*SMALL, *overrides])


def stop_after(trainer: Trainer, steps: int) -> None:
    """Let the trainer's loop end as after Ctrl-C, once it has taken this number of environment steps."""
    finish = trainer.collector.finish

    def counted() -> Any:
        ended = finish()
        if trainer.run.steps + 2 >= steps:
            signal.raise_signal(signal.SIGINT)
        return ended

    trainer.collector.finish = counted  # type: ignore[method-assign]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {
        **trainer.run.model.state_dict(),
        **{f"ac.{k}": v for k, v in trainer.run.actor_critic.state_dict().items()},
    }


@pytest.mark.parametrize(
    ("behaviour", "precision"), [("inline", "float32"), ("process", "float32"), ("process", "bfloat16")]
)
def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, behaviour: str, precision: str) -> None:
    decay = config(
        f"model.precision={precision}",
        "optimiser.final=0.1",
        "actor_critic.optimiser.final=0.5",
        "optimiser.warmup=5",
        f"train.behaviour={behaviour}",
        "train.steps=280",
    )
    whole = Trainer.begin(decay, tmp_path / "whole")
    assert whole.train()
    assert whole.learner.optimiser.adam.param_groups[0]["lr"] == pytest.approx(0.1 * decay.optimiser.learning_rate)
    first = Trainer.begin(decay, tmp_path / "parts")
    stop_after(first, 234)  # in the middle of an episode of 50 steps
    assert not first.train()
    assert first.interrupted and not whole.interrupted
    first.close()
    second = Trainer.resume(tmp_path / "parts")
    assert second.run.steps == 234
    assert second.train()
    assert second.updates == whole.updates > 20
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name
    assert torch.equal(whole.data.get_state(), second.data.get_state())
    whole.close()
    second.close()


def test_a_world_is_learned_by_persistent_random_play_alone(tmp_path: Path) -> None:
    """Interrupted or not; no behaviour is learned."""
    alone = config("train.explore=random", "train.persistence=0.8", "train.behaviour=none", "train.steps=260")
    whole = Trainer.begin(alone, tmp_path / "whole")
    before = {name: value.clone() for name, value in whole.run.actor_critic.state_dict().items()}
    assert whole.train()
    first = Trainer.begin(alone, tmp_path / "parts")
    stop_after(first, 190)
    assert not first.train()
    first.close()
    second = Trainer.resume(tmp_path / "parts")
    assert second.train()
    assert second.updates == whole.updates > 5
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(second)[name]), name
    for name, value in whole.run.actor_critic.state_dict().items():
        assert torch.equal(value, before[name])
    rows = whole.replay.sample(8, 8, torch.Generator().manual_seed(0))
    again = (rows.action[:, 1:] == rows.action[:, :-1]).all(dim=-1)
    assert 0.6 < float(again.float().mean()) < 0.95
    whole.close()
    second.close()


def test_a_run_whose_process_dies_is_saved_and_goes_on(tmp_path: Path) -> None:
    trainer = Trainer.begin(config("train.behaviour=process", "train.steps=260"), tmp_path / "run")
    finish = trainer.collector.finish

    def deadly() -> Any:
        if trainer.run.steps == 200:
            assert isinstance(trainer.behaviour, SeparateProcess)
            trainer.behaviour._child._process.kill()
            trainer.behaviour._child._process.join()
        return finish()

    trainer.collector.finish = deadly  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"learns behaviour died.*The run was saved"):
        trainer.train()
    trainer.close()
    text = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(text.replace("behaviour: process", "behaviour: inline"))
    with pytest.raises(UserError, match=r"train\.behaviour=process and would now go on with inline"):
        Trainer.resume(tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text(text)
    second = Trainer.resume(tmp_path / "run")
    assert 200 <= second.run.steps < 260 and second.train()
    second.close()


def test_the_seed_decides_the_run(tmp_path: Path) -> None:
    results = []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer = Trainer.begin(config(f"seed={seed}", "train.steps=200"), tmp_path / folder)
        trainer.train()
        trainer.close()
        results.append(weights(trainer)["memory.cell.weight_hh"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_environments_that_play_while_the_learner_works_change_nothing(tmp_path: Path) -> None:
    results = []
    for mode in ("sync", "async"):
        trainer = Trainer.begin(config("train.steps=200", f"train.mode={mode}"), tmp_path / mode)
        trainer.train()
        trainer.close()
        results.append(weights(trainer)["memory.cell.weight_hh"])
    assert trainer.updates > 10
    assert torch.equal(results[0], results[1])


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    trainer = Trainer.begin(config("train.film_every=50"), tmp_path / "run")
    trainer.train()
    trainer.close()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"model/pixel_nats", "actor/entropy", "critic/value"} <= set().union(*lines)
    assert any("train/return" in line for line in lines)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    gif = events.Images("dream/open_loop")[-1].encoded_image_string
    assert gif.startswith(b"GIF89a") and gif.count(b"\x21\xf9\x04") > 5  # graphic control: one per frame
    assert "dream/reconstruction" in events.Tags()["images"]
    assert not list((tmp_path / "run").rglob("*.pkl")) and not list((tmp_path / "run").rglob("*.pt"))
    run = wv.load(tmp_path / "run")
    assert run.steps == 400
    assert "Tiny" in repr(run)
    for name, tensor in weights(trainer).items():
        if not name.startswith("ac."):
            assert torch.equal(run.model.state_dict()[name], tensor)


def test_rows_in_the_replay_are_those_of_the_environment(tmp_path: Path) -> None:
    """Replaying the stored actions in a fresh environment gives the stored frames, rewards and terminations."""
    trainer = Trainer.begin(config("train.steps=300", "train.prefill=300"), tmp_path / "run")
    trainer.train()
    from worldvae.envs import make_from
    from worldvae.seeds import episode_seed

    env = make_from(trainer.run.config.env)
    closed = [episode for episode in trainer.replay.episodes() if episode.closed]
    assert len(closed) == 4
    for lane in (0, 1):
        for number, episode in enumerate(e for e in closed if e.lane == lane):
            rows = trainer.replay.read(episode)[0]
            observation, _ = env.reset(seed=episode_seed(0, lane, number))
            assert rows.observation.pixels is not None
            assert len(episode) == 51
            assert np.array_equal(rows.observation.pixels[0], observation["pixels"])
            assert rows.reward[0] == 0 and bool(rows.is_first[0]) and not bool(rows.is_first[1:].any())
            for t in range(50):
                observation, reward, terminated, _, _ = env.step(rows.action[t].numpy())
                assert np.array_equal(rows.observation.pixels[t + 1], observation["pixels"])
                assert rows.reward[t + 1] == np.float32(reward)
                assert bool(rows.termination[t + 1]) == terminated
    trainer.close()


class Failing(gym.Env[Any, Any]):
    """A counter that raises in its 70th step, or returns an observation that is not a number."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)
    played = 0

    def __init__(self, how: str = "raises") -> None:
        self.how = how

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        Failing.played += 1
        self.t += 1
        observation = np.full(2, 0.01 * self.t, np.float32)
        if Failing.played == 150:
            if self.how == "raises":
                raise RuntimeError("the motor is on fire")
            observation = np.full(2, np.nan, np.float32) if self.how == "nan" else np.zeros(3, np.float32)
        return observation, 1.0, self.t >= 20, False, {}


@pytest.mark.parametrize(("how", "word"), [("raises", "motor is on fire"), ("nan", "finite"), ("shape", "shape")])
def test_a_failing_environment_loses_nothing(tmp_path: Path, how: str, word: str) -> None:
    Failing.played = 0
    overrides = ["env.obs=state", f"env.kwargs.how={how}", "train.envs=1", "train.prefill=40", "train.steps=240"]
    trainer = Trainer.begin(config(*overrides, id="tests/Failing-v0"), tmp_path / "run")
    with pytest.raises(UserError, match=word) as caught:
        trainer.train()
    assert "The run was saved" in str(caught.value) and "\n" not in str(caught.value)
    trainer.close()
    resumed = Trainer.resume(tmp_path / "run")
    assert resumed.run.steps == 149
    assert resumed.train()
    assert resumed.run.steps == 240
    assert len(resumed.replay) > 240
    resumed.close()


class Drifting(Failing):
    """Not deterministic: it keeps counting across episodes and processes."""

    def step(self, action: Any) -> Any:
        Failing.played += 1
        self.t += 1
        return np.full(2, Failing.played % 97 / 97, np.float32), 1.0, self.t >= 20, False, {}


gym.register("tests/Failing-v0", entry_point=Failing)
gym.register("tests/Drifting-v0", entry_point=Drifting)


def test_an_environment_that_cannot_be_brought_back_is_begun_anew(tmp_path: Path) -> None:
    first = Trainer.begin(config("env.obs=state", id="tests/Drifting-v0"), tmp_path / "run")
    stop_after(first, 234)
    first.train()
    first.close()
    with pytest.warns(UserWarning, match="not deterministic"):
        second = Trainer.resume(tmp_path / "run")
    assert second.train()
    second.close()


def test_the_packaged_configs_are_valid() -> None:
    for name in ("tiny", "pendulum", "cartpole", "pendulum_state", "cartpole_state"):
        path = find_config(name)
        assert path is not None
        loaded = load_config(RunConfig, [path])
        assert loaded.train.steps > loaded.train.prefill
