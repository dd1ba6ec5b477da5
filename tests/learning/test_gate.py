"""The learning gate: a short training on the built-in pixel world must clearly beat uniform actions."""

from pathlib import Path

import pytest

from worldvae.config import find_config, load_config
from worldvae.evaluation.held_out import held_out_episodes
from worldvae.evaluation.play import evaluate
from worldvae.films.open_loop import open_loop
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

MARGIN = 12.0
"""Set beforehand: of 50, uniform actions earn about 15 and the best feedback 48; an agent must earn 12 more than 15."""

GAIN = 1.0
"""Decibels by which dreams beat the last frame repeated, 5 to 15 steps ahead, in episodes of uniform actions: a good
actor holds the ball still, where nothing beats repeating. Set after two seeds had gained 3.6 to 5.0 dB there."""


@pytest.mark.gate(seconds=110)
def test_tiny_is_learned_from_pixels(tmp_path: Path) -> None:
    path = find_config("tiny")
    assert path is not None
    trainer = Trainer.begin(load_config(RunConfig, [path]), tmp_path / "run")
    assert trainer.train()
    trainer.close()
    run = trainer.run
    for agent in ("actor", "cem"):
        result = evaluate(run.make_agent(agent), run.config.env, 10, seed=1)
        assert result.mean > result.random_mean + MARGIN, f"{agent}: {result.mean} against {result.random_mean}"
    seen = held_out_episodes(run, run.make_agent("random"), 8, seed=1)
    dream = open_loop(run.model, seen.rows, seen.valid.sum(dim=1) - 1, 5, 15)
    gains = [ours - copy for ours, copy in zip(dream.psnr, dream.psnr_copy_last, strict=True)]
    assert min(gains[4:]) > GAIN, gains
