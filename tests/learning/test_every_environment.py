"""200 updates on every kind of environment, whatever spaces it has."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from tests.test_commands import QUICK, call

pytestmark = pytest.mark.gate


@pytest.mark.parametrize(
    "env_id",
    [
        "CartPole-v1",
        "Pendulum-v1",
        "Acrobot-v1",
        "MountainCar-v0",
        "MountainCarContinuous-v0",
        "Blackjack-v1",
        "FrozenLake-v1",
        "FrozenLake8x8-v1",
        "CliffWalking-v1",
        "Taxi-v4",
    ],
)
def test_train_runs_on_every_environment(env_id: str, tmp_path: Path) -> None:
    """200 updates with any spaces, as a user would run it: in a separate process, without checks of shapes."""
    quick = [*QUICK, "train.updates=200", "train.steps=1200", "train.eval_episodes=1", "train.envs=1"]
    shrunk = ["env.time_limit=60", "env.size=[24,32]", "train.ratio=1"]
    command = [sys.executable, "-m", "worldvae.commands.cli", "train", env_id, "--out", str(tmp_path / "run")]
    done = subprocess.run([*command, *quick, *shrunk], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("train/updates", 0) for line in lines) == 200


class Mixed(gym.Env[Any, Any]):
    """Dict observations (an image, a vector and a Discrete) and MultiDiscrete actions."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (20, 24, 3), np.uint8),
            "speed": spaces.Box(-np.inf, np.inf, (2,), np.float32),
            "mode": spaces.Discrete(3, start=1),
        }
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def _observe(self) -> dict[str, Any]:
        image = np.zeros((20, 24, 3), np.uint8)
        image[:, : self.t] = 255
        return {"image": image, "speed": np.array([self.t, -1], np.float32), "mode": np.int64(1 + self.t % 3)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.t += 1
        return self._observe(), float(action[1]), self.t >= 15, False, {}


def test_train_runs_on_dict_observations_and_multidiscrete_actions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gym.register("tests/Mixed-v0", entry_point=Mixed)
    quick = [*QUICK, "train.updates=200", "train.steps=1200", "train.ratio=1"]
    assert call("train", "tests/Mixed-v0", "--out", str(tmp_path / "run"), *quick) == 0
    for agent in ("actor", "cem"):
        assert call("eval", str(tmp_path / "run"), "--agent", agent, "--episodes", "2") == 0
