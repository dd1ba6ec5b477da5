"""Environments of which a process can hold only one: pools, evaluations, films and goals, and all during training."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.training.test_trainer import SMALL
from worldvae.agents import RandomAgent
from worldvae.commands.check_env import inspect_env
from worldvae.config import load_config
from worldvae.envs import EnvConfig, EnvPool
from worldvae.envs.worlds.two_rooms import TwoRoomsEnv
from worldvae.errors import UserError
from worldvae.evaluation import play
from worldvae.evaluation.held_out import held_out_rows
from worldvae.evaluation.play import evaluate
from worldvae.evaluation.reaching import GoalSuite
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

LIVE: list[int] = []
"""Process ids of live instances in this process; like those of emulators, a forked process inherits its parent's."""


class Emulator(TwoRoomsEnv):
    """An environment of which a second instance raises, and whose observation shows its process id."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if LIVE:
            raise RuntimeError(f"the core is taken by process {LIVE}")
        LIVE.append(os.getpid())
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))

    def observe(self) -> np.ndarray:
        return np.full(1, os.getpid() % 2**20, np.float32)

    def close(self) -> None:
        LIVE.clear()


@pytest.fixture(autouse=True)
def _emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    entry = gym.envs.registration.EnvSpec("Emulator-v0", Emulator, max_episode_steps=6)
    monkeypatch.setitem(gym.registry, "Emulator-v0", entry)
    yield
    assert LIVE == []


ALONE = EnvConfig("Emulator-v0", obs="state", alone=True)


class Still(RandomAgent):
    """An agent that does nothing, so that only the episodes differ."""

    def act(self, observation: Any, is_first: Any, *rest: Any, **options: Any) -> Any:
        return torch.zeros(len(is_first), self.layout.size), None


def layout_of(env: EnvConfig) -> Any:
    with EnvPool([env]) as pool:
        return pool.action_layout


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("workers", [None, 1])
def test_each_environment_of_a_pool_has_a_process_of_its_own(mode: str, workers: int | None) -> None:
    with EnvPool([ALONE] * 3, mode=mode, workers=workers) as pool:
        vector = pool.reset(range(3)).vector
        assert vector is not None and LIVE == []
        assert len({*vector.flatten().tolist(), float(os.getpid() % 2**20)}) == 4
        assert pool.step(torch.zeros(3, pool.action_layout.size)).reward.shape == (3,)
        with EnvPool([ALONE]) as other:
            other.reset([0])


def test_without_the_setting_the_second_instance_is_told() -> None:
    with pytest.raises(UserError, match="Emulator-v0 cannot be made: RuntimeError: the core is taken"):
        EnvPool([EnvConfig("Emulator-v0", obs="state")] * 2)


def test_a_pool_that_cannot_be_filled_leaves_nothing_behind() -> None:
    with pytest.raises(UserError, match="cannot be made"):
        EnvPool([EnvConfig("Emulator-v0", obs="state"), EnvConfig("Emulator-v0", obs="state", kwargs={"no": 1})])
    with pytest.raises(UserError, match="no environment 'Nowhere-v0'"):
        EnvPool([EnvConfig("Nowhere-v0", alone=True)])


def test_evaluations_play_a_few_episodes_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    genuine = play.play

    def counted(agent: Any, env: Any, episodes: int, *rest: Any, **options: Any) -> Any:
        sizes.append(episodes)
        return genuine(agent, env, episodes, *rest, **options)

    monkeypatch.setattr(play, "play", counted)
    agent = RandomAgent(layout_of(ALONE))
    found = play.in_parts(agent, ALONE, 6, seed=1)
    assert sizes == [4, 2] and sum(len(part.returns) for part in found) == 6


def test_an_evaluation_is_of_the_same_episodes_with_and_without_the_setting() -> None:
    env = EnvConfig("worldvae/Tiny-v0", obs="state", time_limit=3)
    agent = Still(layout_of(env))
    here, elsewhere = (
        torch.cat([part.returns for part in play.in_parts(agent, config, 6, seed=1)])
        for config in (env, replace(env, alone=True))
    )
    assert len(set(here.tolist())) == 6
    assert torch.equal(here, elsewhere)


def test_a_training_films_and_evaluates(tmp_path: Path) -> None:
    source = {"env": {"id": "Emulator-v0", "alone": True}}
    sizes = ["train.steps=40", "train.prefill=32", "train.pretrain=2", "train.film_every=2", "train.log_every=2"]
    trainer = Trainer.begin(load_config(RunConfig, [source], [*SMALL, *sizes]), tmp_path)
    assert trainer.train()
    assert trainer.updates >= 2 and any(tmp_path.glob("events*"))
    trainer.run.check_env()
    assert len(evaluate(trainer.run.agent, trainer.run.config.env, 2).returns) == 2
    rows, lengths = held_out_rows(trainer.run, 4, 5)
    assert rows.reward.shape == (5, 4) and lengths.shape == (5,)
    trainer.close()


def test_goals_are_played_one_at_a_time() -> None:
    found = GoalSuite(EnvConfig("Emulator-v0", obs="pixels", size=(16, 16), alone=True), pairs=2).random()
    assert len(found.distances) == 2


def test_check_env_tells_the_setting() -> None:
    report = inspect_env(EnvConfig("Emulator-v0", obs="state"), seconds=0.0)
    assert any("cannot hold two instances" in problem and "env.alone=true" in problem for problem in report.problems)
    assert not any("two instances" in problem for problem in inspect_env(ALONE, seconds=0.0).problems)
