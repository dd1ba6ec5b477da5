"""How to add an environment.

1. Write a Gymnasium environment: `observation_space`, `action_space`, `reset`, `step` (and `render`, for pixels).
2. `gym.register(id, entry_point)`, in your own module.
3. `worldvae check-env my_module:My/Corridor-v0` says whether it can be learned.
4. `worldvae train my_module:My/Corridor-v0`, or, in Python,
   `wv.Trainer.begin(configure({"env": {"id": ...}}, []), folder)`.
"""

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import worldvae as wv
from tests.test_commands import call
from worldvae.evaluation.play import evaluate
from worldvae.runs.settings import configure

ID = "Recipes/Corridor-v0"
SMALL = (Path(__file__).parents[1] / "small_run.txt").read_text().split()


class Corridor(gym.Env):
    """Nine fields in a row; reaching the last one is rewarded and ends the episode."""

    def __init__(self, render_mode: str | None = None) -> None:
        self.observation_space = gym.spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.render_mode, self.field = render_mode, 0

    def reset(self, *, seed=None, options=None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.field = int(self.np_random.integers(0, 4))
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.field = min(8, max(0, self.field + (1 if action else -1)))
        arrived = self.field == 8
        return self._seen(), float(arrived), arrived, False, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.field / 8], np.float32)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gym.registry, ID, gym.envs.registration.EnvSpec(ID, Corridor, max_episode_steps=30))
    # in your own module: gym.register(ID, Corridor, max_episode_steps=30)


def test_it_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check-env", ID) == 0
    assert "Corridor" in capsys.readouterr().out


def test_it_is_learned_and_played(tmp_path: Path) -> None:
    config = configure({"env": {"id": ID, "obs": "state"}}, [*SMALL, "train.updates=8", "train.eval_episodes=0"])
    trainer = wv.Trainer.begin(config, tmp_path / "run")
    trainer.train()
    trainer.close()
    run = wv.load(tmp_path / "run")
    assert run.model.action_layout == wv.ActionLayout(categorical=(2,))
    found = evaluate(run.agent, run.config.env, episodes=2)
    assert 0 <= found.mean <= 1 and 0 <= found.random_mean <= 1
