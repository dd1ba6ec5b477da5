"""Pools: sync and async equal a plain loop; true last observations; masks; faults reach the caller."""

import os
import signal
import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from worldvae.envs import EnvConfig, EnvPool, WorldEnv, make_from, wrap
from worldvae.errors import UserError
from worldvae.planning import uniform_actions

MODES = pytest.mark.parametrize("mode", ["sync", "async"])
SHORT = EnvConfig("worldvae/Tiny-v0", obs="both", size=(16, 16), time_limit=5, kwargs={"terminate": True, "side": 16})


class Faulty(gym.Env):
    """An environment that fails in a given way at its second step."""

    def __init__(self, fault: str) -> None:
        self.observation_space = gym.spaces.Box(-1, 1, (2,))
        self.action_space = gym.spaces.Box(-1, 1, (1,))
        self.fault, self.count = fault, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count = 0
        if self.fault == "raises in reset":
            raise RuntimeError("no world today")
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        wrong = self.fault if self.count == 2 else ""
        if wrong == "raises in step":
            raise RuntimeError("the world fell apart")
        if wrong == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        observation = np.full(2, np.nan if wrong == "NaN observation" else 0.0, np.float32)
        if wrong == "wrong shape":
            observation = np.zeros(3, np.float32)
        return observation, np.nan if wrong == "NaN reward" else 0.0, False, False, {}


@MODES
@pytest.mark.parametrize("config", [SHORT, EnvConfig("CartPole-v1", size=(16, 24))], ids=["both", "pixels"])
def test_a_pool_equals_a_plain_loop(mode: str, config: EnvConfig) -> None:
    rows, steps = 3, 14
    actions = uniform_actions(
        make_from(config).action_layout, (steps, rows), torch.device("cpu"), torch.Generator().manual_seed(0)
    )
    ended = 0
    with EnvPool([config] * rows, mode=mode, workers=2) as pool:
        loop = [make_from(config) for _ in range(rows)]
        shown = pool.reset(range(rows))
        expected = [env.reset(seed=i)[0] for i, env in enumerate(loop)]
        for t in range(steps):
            for i in range(rows):
                for key, value in expected[i].items():
                    np.testing.assert_array_equal(getattr(shown, key)[i].numpy(), value)
            step = pool.step(actions[t])
            results = [env.step(actions[t, i].numpy()) for i, env in enumerate(loop)]
            for i, (last, reward, terminated, truncated, _) in enumerate(results):
                row = (step.reward[i].item(), step.terminated[i].item(), step.truncated[i].item())
                assert row == (np.float32(reward), terminated, truncated)
                for key, value in last.items():  # also at the end of an episode: the true last observation
                    np.testing.assert_array_equal(getattr(step.observation, key)[i].numpy(), value)
            shown, expected = step.observation, [result[0] for result in results]
            if step.done.any():
                ended += int(step.done.sum())
                shown = pool.reset([100 + t] * rows, step.done)
                for i in torch.nonzero(step.done).flatten().tolist():
                    expected[i] = loop[i].reset(seed=100 + t)[0]
    assert ended > 0 or config.id == "CartPole-v1"


@MODES
def test_returned_tensors_are_copies(mode: str) -> None:
    with EnvPool([SHORT] * 2, mode=mode) as pool:
        first = pool.reset([0, 1])
        kept = first.map(torch.clone)
        step = pool.step(torch.ones(2, 1))
        assert first.vector is not None and kept.vector is not None and step.observation.vector is not None
        assert torch.equal(first.vector, kept.vector)
        assert not torch.equal(first.vector, step.observation.vector)


@MODES
def test_rows_that_are_not_active_rest(mode: str) -> None:
    with EnvPool([SHORT] * 3, mode=mode) as pool:
        pool.reset([0, 1, 2])
        active = torch.tensor([True, True, False])
        before = pool.step(torch.zeros(3, 1)).observation.vector
        step = pool.step(torch.ones(3, 1), active)
        after = step.observation.vector
        assert before is not None and after is not None
        assert torch.equal(before[2], after[2]) and not torch.equal(before[0], after[0])
        assert step.reward[2] == 0 and not step.done[2]
        for _ in range(3):
            step = pool.step(torch.zeros(3, 1), active)
        assert step.truncated.tolist() == [True, True, False]
        with pytest.raises(AssertionError, match="done"):
            pool.step(torch.zeros(3, 1))
        # the inactive one continues where it was, after the others have ended
        assert pool.step(torch.zeros(3, 1), ~active).done.tolist() == [False, False, False]
        assert pool.reset([0, 1, 2], step.done).vector is not None
        pool.step(torch.zeros(3, 1))


def test_stepping_before_the_first_reset_is_ours() -> None:
    with EnvPool([SHORT]) as pool, pytest.raises(AssertionError, match="reset"):
        pool.step(torch.zeros(1, 1))


@MODES
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("NaN observation", "Faulty, at step 2 of an episode: the observation holds NaN"),
        ("NaN reward", "Faulty, at step 2 of an episode: the reward is nan"),
        ("wrong shape", r"Faulty, at step 2 of an episode: the observation has the shape \(3,\)"),
        ("raises in step", r"Faulty, at step 2 .*step\(\) raised RuntimeError: the world fell apart"),
        ("raises in reset", r"Faulty, at reset: .*reset\(\) raised RuntimeError: no world today"),
    ],
)
def test_a_fault_reaches_the_caller_as_the_same_sentence(mode: str, fault: str, words: str) -> None:
    def good() -> WorldEnv:
        return wrap(Faulty(""))

    def bad() -> WorldEnv:
        return wrap(Faulty(fault))

    with EnvPool([good, bad, good], mode=mode, workers=3) as pool:
        with pytest.raises(UserError, match=words):
            pool.reset(range(3))
            pool.step(torch.zeros(3, 1))
            pool.step(torch.zeros(3, 1))
        if fault != "raises in reset":  # and the pool still works
            pool.reset(range(3))
            assert not pool.step(torch.zeros(3, 1)).done.any()


def test_a_worker_that_is_killed_is_reported() -> None:
    with EnvPool([lambda: wrap(Faulty("dies"))] * 2, mode="async", workers=1) as pool:
        pool.reset(range(2))
        pool.step(torch.zeros(2, 1))
        with pytest.raises(UserError, match="exit code -9"):
            pool.step(torch.zeros(2, 1))


@MODES
def test_an_environment_that_cannot_be_made_is_told(mode: str) -> None:
    with pytest.raises(UserError, match="Did you mean 'CartPole-v1'"):
        EnvPool([EnvConfig("CartPle-v1")] * 2, mode=mode)
    with pytest.raises(UserError, match="must look alike"):
        EnvPool([SHORT, EnvConfig("CartPole-v1", obs="state")], mode=mode)
    with pytest.raises(UserError, match="at least one"):
        EnvPool([], mode=mode)


def test_an_unknown_mode_is_told() -> None:
    with pytest.raises(UserError, match="Did you mean 'async'"):
        EnvPool([SHORT], mode="asinc")


def test_no_process_is_left_behind() -> None:
    pool = EnvPool([SHORT] * 2, mode="async", workers=2)
    processes = [worker._process for worker in pool._workers]
    assert all(process.is_alive() for process in processes)
    pool.close()
    pool.close()
    assert not any(process.is_alive() for process in processes)


def test_workers_run_after_torch_has_used_its_threads() -> None:
    """Forked workers must not wait for threads that only their parent has."""
    script = """
import torch
from worldvae.envs import EnvConfig, EnvPool
torch.set_num_threads(2)
(torch.randn(600, 600) @ torch.randn(600, 600)).relu().sum()
with EnvPool([EnvConfig("CartPole-v1")] * 2, mode="async", workers=2) as pool:
    pool.reset(range(2))
    print(pool.step(torch.zeros(2, 2)).observation.pixels.shape)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "2, 3, 64, 64" in done.stdout, done.stderr


@MODES
def test_environments_play_between_send_and_receive(mode: str) -> None:
    with EnvPool([SHORT] * 3, mode=mode, workers=2) as pool, EnvPool([SHORT] * 3) as other:
        action = torch.full((3, pool.action_layout.size), 0.3)
        for each in (pool, other):
            each.reset(range(3))
        pool.send(action)
        action.zero_()  # changes after `send` have no effect
        with pytest.raises(AssertionError, match="receive it first"):
            pool.send(action)
        with pytest.raises(AssertionError, match="receive it first"):
            pool.reset(range(3))
        step, expected = pool.receive(), other.step(torch.full_like(action, 0.3))
        assert torch.equal(step.reward, expected.reward)
        with pytest.raises(AssertionError, match="send actions first"):
            pool.receive()
