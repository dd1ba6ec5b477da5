"""The protocol of world models, and that the learner uses nothing else."""

from collections.abc import Callable

import torch

import worldvae as wv
from worldvae.models.probabilistic import Probabilistic
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.models.world_model import Loss, WorldModel
from worldvae.networks.optimiser import OptimiserConfig
from worldvae.objectives import ELBOConfig, elbo_loss
from worldvae.training.learner import Learner
from worldvae.types import ActionLayout, Batch, ObservationLayout

Maker = Callable[..., SequentialVAE]
Rows = Callable[..., Batch]


def test_both_names_of_the_library_make_a_sequential_vae() -> None:
    assert wv.WorldModel is wv.SequentialVAE is SequentialVAE
    assert issubclass(SequentialVAE, torch.nn.Module)
    model = wv.WorldModel(ObservationLayout(vector=2), ActionLayout(1), wv.WorldModelConfig(size="tiny"))
    assert isinstance(model, Probabilistic) and not isinstance(torch.nn.Linear(1, 1), WorldModel)


def test_what_is_shown_is_what_there_is(make_model: Maker) -> None:
    assert make_model((1, 8, 12), vector=3).shows == {"pixels", "vector"}
    assert make_model(None, vector=3).shows == {"vector"}


def test_the_loss_is_that_of_the_bound_by_the_models_objective(make_model: Maker, make_batch: Rows) -> None:
    """The states are drawn first, and then the frames, from the same generator."""
    objective = ELBOConfig(free_nats=0.3, reward=2.0, decode_steps=2)
    model = make_model((1, 8, 12), vector=3, objective=objective)
    rows, draws = make_batch(model, 2, 5), torch.Generator().manual_seed(3)
    found = model.loss(rows, torch.Generator().manual_seed(3))
    observed = model.observe(rows, generator=draws)
    terms = model.elbo(rows, observed, 2, draws)
    assert torch.equal(found.value, elbo_loss(terms, objective)) and found.value.requires_grad
    assert torch.equal(found.states.features, observed.posterior.features) and not found.states.features.requires_grad
    assert not any(value.requires_grad for value in found.metrics.values())
    costs = {"reward_nats", "continuation_nats", "kl", "pixel_nats", "vector_nats"}
    assert found.metrics.keys() == costs | {"bound"}
    assert torch.isclose(found.metrics["bound"], -sum(found.metrics[name] for name in costs), rtol=1e-4)


def test_a_posterior_that_looks_ahead_is_given_what_comes_after(make_model: Maker, make_batch: Rows) -> None:
    for context in ("filter", "smooth"):
        model = make_model(None, vector=3, context=context)
        rows = make_batch(model, 2, 4)
        alone, embedded = model.encode(rows.observation), model.embed(rows)
        assert embedded.shape == alone.shape and model.looks_ahead == (context == "smooth")
        assert torch.equal(alone, embedded) != model.looks_ahead


class Taught(SequentialVAE):
    """A model whose loss is the size of its weights, and which counts its updates."""

    def __init__(self) -> None:
        super().__init__(ObservationLayout(vector=2), ActionLayout(1), wv.WorldModelConfig(size="tiny"))
        self.steps = 0

    def loss(self, batch: Batch, generator: torch.Generator | None = None) -> Loss:
        value = sum((p.square().sum() for p in self.parameters()), start=torch.zeros(()))
        return Loss(value, self.initial(len(batch.reward)), {"weights": value.detach()})

    def updated(self) -> None:
        self.steps += 1


def test_a_learner_takes_any_loss_and_says_when_it_has_stepped(make_batch: Rows) -> None:
    model = Taught()
    learner, rows = Learner(model, OptimiserConfig(warmup=0)), make_batch(model, 2, 3)
    assert learner.is_sound(rows) and model.steps == 0
    metrics = [learner.update(rows)[1] for _ in range(3)]
    assert model.steps == 3
    assert set(metrics[0]) == {"model/loss", "model/weights", "model/grad_norm", "model/skipped"}
    assert float(metrics[2]["model/weights"]) < float(metrics[0]["model/weights"])
