"""The learner overfits a small batch, and resumes bit for bit."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from worldvae.models.sequential_vae import SequentialVAE
from worldvae.networks.optimiser import OptimiserConfig
from worldvae.objectives import ELBOConfig
from worldvae.training.learner import Learner
from worldvae.types import Batch

Maker = Callable[..., SequentialVAE]
Rows = Callable[..., Batch]


@pytest.mark.parametrize(("memory", "latent"), [("gru", "gaussian"), ("block_gru", "categorical")])
def test_it_overfits_one_small_batch(make_model: Maker, make_batch: Rows, memory: str, latent: str) -> None:
    """150 updates explain half of the frames' noise; before that, each row costs the squared error of the mean frame.

    A patch of noise has 16 independent pixels, and the decoder can output at most as many as it has channels.
    """
    model = make_model((1, 8, 12), memory=memory, latent=latent, depth=16, awake=False)
    rows = make_batch(model, 2, 4)
    model.calibrate(rows.observation)
    learner = Learner(model, OptimiserConfig(learning_rate=1e-2, warmup=10))
    generator = torch.Generator().manual_seed(0)
    log = [learner.update(rows, generator)[1] for _ in range(150)]
    sigma = model.config.pixel_sigma
    constant = 8 * 12 * (math.log(2 * math.pi) / 2 + math.log(sigma))  # of the density: nothing can improve it
    first, last = (float(metrics["model/pixel_nats"]) - constant for metrics in (log[0], log[-1]))
    variance = (rows.observation.pixels / 255).var((0, 1), correction=0).sum()  # type: ignore[operator]
    assert first == pytest.approx(float(variance) / (2 * sigma**2), rel=1e-3)
    assert last < 0.5 * first
    assert float(log[-1]["model/loss"]) < float(log[0]["model/loss"]) - 0.5 * first
    assert float(log[-1]["model/reward_nats"]) < 0.5 * float(log[0]["model/reward_nats"])


def test_update_returns_detached_states_and_consistent_metrics(make_model: Maker, make_batch: Rows) -> None:
    model = make_model((1, 8, 12), vector=3)
    rows = make_batch(model, 2, 4)
    states, metrics = Learner(model, OptimiserConfig()).update(rows, torch.Generator().manual_seed(0))
    assert states.features.shape == (2, 4, model.feature_size)
    assert not states.features.requires_grad
    assert not any(value.requires_grad for value in metrics.values())
    parts = ("pixel_nats", "vector_nats", "reward_nats", "continuation_nats", "kl")
    assert -float(metrics["model/bound"]) == pytest.approx(sum(float(metrics[f"model/{k}"]) for k in parts), rel=1e-4)


def test_it_goes_on_bit_for_bit_from_its_state(make_model: Maker, make_batch: Rows) -> None:
    objective = ELBOConfig(decode_steps=2)
    model = make_model(objective=objective)
    rows = make_batch(model, 2, 4)
    config = OptimiserConfig(learning_rate=1e-2, warmup=6)
    learner, generator = Learner(model, config), torch.Generator().manual_seed(0)
    for _ in range(3):
        learner.update(rows, generator)
    saved = copy.deepcopy((model.state_dict(), learner.optimiser.state_dict(), generator.get_state()))
    other = make_model(seed=7, objective=objective)
    resumed = Learner(other, config)
    other.load_state_dict(saved[0])
    resumed.optimiser.load_state_dict(saved[1])
    for _ in range(5):
        learner.update(rows, generator)
    generator.set_state(saved[2])
    for _ in range(5):
        resumed.update(rows, generator)
    assert resumed.optimiser.updates == learner.optimiser.updates == 8
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_one_batch_of_nan_changes_no_weight(make_model: Maker, make_batch: Rows, generator: torch.Generator) -> None:
    model = make_model()
    rows = make_batch(model, 2, 4)
    learner = Learner(model, OptimiserConfig())
    learner.update(rows, generator)
    before = copy.deepcopy(model.state_dict())
    broken = replace(rows, reward=torch.full_like(rows.reward, torch.nan))
    _, metrics = learner.update(broken, generator)
    assert float(metrics["model/skipped"]) == 1 and learner.optimiser.updates == learner.optimiser.skipped == 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    _, metrics = learner.update(rows, generator)
    assert float(metrics["model/skipped"]) == 0 and bool(metrics["model/loss"].isfinite())


def test_the_same_seed_gives_the_same_bits(make_model: Maker, make_batch: Rows) -> None:
    losses = []
    for seed in (0, 0, 1):
        model = make_model()
        learner, generator = Learner(model, OptimiserConfig()), torch.Generator().manual_seed(seed)
        losses.append([float(learner.update(make_batch(model, 2, 4), generator)[1]["model/loss"]) for _ in range(3)])
    assert losses[0] == losses[1] != losses[2]
