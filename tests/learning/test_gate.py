"""The learning gate: a short training on the built-in pixel world must clearly beat uniform actions."""

from pathlib import Path

import pytest

from worldvae.config import find_config, load_config
from worldvae.evaluation.held_out import held_out_dream
from worldvae.evaluation.play import evaluate
from worldvae.runs.settings import RunConfig
from worldvae.training.trainer import Trainer

MARGIN = 12.0
"""Set beforehand: of 50, uniform actions earn about 15 and the best feedback 48; an agent must earn 12 more than 15."""


@pytest.mark.gate(seconds=80)
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
    dream = held_out_dream(run, context=5, horizon=15, episodes=8, seed=1)
    assert all(ours > copy for ours, copy in zip(dream.psnr[1:], dream.psnr_copy_last[1:], strict=True))
