"""Recorded episodes of random play, held in memory: what the study of model kinds needs of them, and nothing else."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from worldvae.agents import RandomAgent
from worldvae.envs import EnvConfig, EnvPool
from worldvae.evaluation.play import play
from worldvae.types import Batch


class FakeRecorded:
    def __init__(self, rows: Batch, lengths: Tensor) -> None:
        self.rows, self.lengths = rows, lengths
        third = len(lengths) // 3
        self.parts = {"validation": slice(0, third), "test": slice(third, 2 * third)}
        self.train = rows[2 * third :]
        self.digest = hashlib.sha256(rows.reward.numpy().tobytes()).hexdigest()

    def sample(self, batch: int, length: int, generator: torch.Generator) -> Batch:
        episodes, time = self.train.reward.shape
        which = torch.randint(episodes, (batch,), generator=generator)
        start = torch.randint(time - length + 1, (batch,), generator=generator)
        rows = self.train[which.unsqueeze(1), start.unsqueeze(1) + torch.arange(length)]
        rows.is_first[:, 0] = True
        return rows

    def held_out(self, split: str) -> tuple[Batch, Tensor, Tensor | None]:
        part = self.parts[split]
        return self.rows[part], self.lengths[part], self.rows.observation.vector


def record(env: EnvConfig, episodes: int, folder: Path, seed: int = 0) -> FakeRecorded:
    with EnvPool([env]) as pool:
        agent = RandomAgent(pool.action_layout)
    played = play(agent, env, episodes, seed, keep_rows=True)
    assert played.rows is not None
    return FakeRecorded(played.rows, played.lengths)
