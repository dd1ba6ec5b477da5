"""Parts that fit together make a model that learns; for others the error says what would fit."""

import re
from dataclasses import fields

import pytest
import torch
from torch import nn

from worldvae.errors import UserError
from worldvae.memory import MarkovConfig
from worldvae.models.parts import WorldModelConfig
from worldvae.models.registry import PRIORS
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.networks.optimiser import OptimiserConfig
from worldvae.objectives import ELBOConfig
from worldvae.priors import FlowConfig, FlowMatchingConfig, HierarchicalConfig, MixtureConfig, VampConfig
from worldvae.runs.settings import configure
from worldvae.training.learner import Learner

OTHERS = [
    {"latent": "full"},
    {"posterior": "flow"},
    {"posterior": "flow", "prior": "flow"},
    {"context": "smooth"},
    {"perceptron": "bypassed"},
    {"perceptron": "bypassed", "memory": "markov", "latent": "full", "context": "smooth"},
    {"perceptron": "bypassed", "memory": "markov", "markov": MarkovConfig(carry=True), "reward": "gaussian"},
    {"perceptron": "plain", "reward": "gaussian"},
    {"perceptron": "plain", "latent": "categorical"},
    {"frames": "heteroscedastic"},
    {"frames": "logistic"},
    {"frames": "logistic", "trunk": "strided"},
    {"frames": "bernoulli"},
    {"frames": "diffusion"},
    {"frames": "diffusion", "trunk": "strided", "pixel_sigma_learned": True},
    {"memory": "transformer", "prior": "mixture"},
    {"memory": "markov", "prior": "hierarchical"},
    {"stages": "two", "prior": "mixture"},
    {"ensemble": 3},
    {"ensemble": 3, "latent": "categorical"},
    {"ensemble": 3, "posterior": "flow"},
]
CHOICES = [*({"prior": prior} for prior in PRIORS), *OTHERS]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_what_fits_together_learns(make_model, make_batch, choice: dict[str, str]) -> None:
    model: SequentialVAE = make_model((1, 16, 16), vector=3, depth=4, objective=ELBOConfig(free_nats=0.0), **choice)
    rows = make_batch(model, 4, 6)
    model.calibrate(rows.observation)
    learner = Learner(model, OptimiserConfig(learning_rate=3e-3, warmup=0))
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(12):
        states, metrics = learner.update(rows, generator)
        losses.append(float(metrics["model/loss"]))
    assert all(torch.isfinite(torch.tensor(losses)))
    assert sum(losses[-3:]) < sum(losses[:3]), losses
    with torch.no_grad():
        dream = model.imagine(states[:, -1], torch.zeros(4, 3, 2), generator=generator)
        assert model.decode(dream.states, "pixels").mean.shape == (4, 3, 1, 16, 16)
    assert bool(torch.isfinite(dream.states.features).all()) and bool(torch.isfinite(dream.rewards).all())


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (
            {"latent": "categorical", "prior": "flow"},
            "prior=flow .* it needs latent=gaussian or full",
        ),
        ({"latent": "categorical", "posterior": "flow"}, "posterior=flow cannot be built with latent=categorical"),
        ({"prior": "hierarchical", "posterior": "flow"}, "posterior=flow: it needs posterior=amortised"),
        ({"prior": "hierarchical", "latent": "full"}, "prior=hierarchical .* latent=full: it needs latent=gaussian"),
        ({"prior": "vamp", "latent": "full"}, "prior=vamp .* latent=full: it needs latent=gaussian"),
        ({"stages": "two", "posterior": "flow"}, "stages=two .* posterior=flow: it needs posterior=amortised"),
        ({"stages": "two", "prior": "vamp"}, "prior=vamp cannot be built with stages=two: it needs stages=one"),
        (
            {"stages": "two", "latent": "categorical"},
            "stages=two .* it needs latent=gaussian or full",
        ),
        ({"stages": "two", "context": "smooth"}, "stages=two .* context=smooth: it needs context=filter"),
        ({"ensemble": 1}, "ensemble=1: one head cannot disagree"),
        ({"perceptron": "bypassed", "memory": "block_gru"}, "memory=block_gru .* it needs perceptron=normed"),
        ({"perceptron": "bypassed", "prior": "flow"}, "prior=flow .* perceptron=bypassed: it needs perceptron=normed"),
        ({"perceptron": "bypassed", "posterior": "flow"}, "posterior=flow .* it needs perceptron=normed"),
        ({"perceptron": "bypassed", "stages": "two"}, "stages=two .* it needs perceptron=normed"),
        ({"perceptron": "plain", "memory": "transformer"}, "memory=transformer .* it needs perceptron=normed"),
        ({"perceptron": "plain", "memory": "markov"}, "memory=markov .* it needs perceptron=normed or bypassed"),
        ({"perceptron": "plain", "prior": "vamp"}, "prior=vamp .* perceptron=plain: it needs perceptron=normed"),
        (
            {"markov": MarkovConfig(carry=True)},
            "markov has settings, and no part of that name is chosen: give memory=markov",
        ),
        ({"flow": FlowConfig(transforms=2)}, "give prior=flow or posterior=flow"),
        ({"prior": "mixtur"}, "prior=mixtur is not accepted: take one of own, standard, mixture"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(choice: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WorldModelConfig(**choice)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"prior": "hierarchical", "hierarchical": HierarchicalConfig(3), "gaussian": 4}, "z of length 4 .* levels=3"),
        ({"frames": "diffusion", "pixel_sigma": 0.01}, "pixel_sigma=0.01 must be above 0.01 with frames=diffusion"),
    ],
    ids=str,
)
def test_what_cannot_be_built_is_refused_by_the_part(make_model, choice: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_model((1, 16, 16), **choice)


@pytest.mark.parametrize("section", [MixtureConfig, VampConfig, FlowConfig, HierarchicalConfig, FlowMatchingConfig])
def test_a_section_refuses_a_number_that_no_part_can_have(section: type) -> None:
    (name,) = (field.name for field in fields(section))
    with pytest.raises(ValueError, match=f"{name}=0"):
        section(0)


def test_every_old_word_is_told_the_new_one() -> None:
    for old, new in WorldModelConfig.MOVED.items():
        setting = re.search(r"model\.[a-z_.]+=\w+", new)
        assert setting is not None, old
        given = setting[0].replace("=N", "=3")
        part = given.split(".")[1]
        chosen = {"markov": ["model.memory=markov"]}.get(part, [f"model.prior={part}"]) if given.count(".") == 2 else []
        configure({"env": {"id": "worldvae/Tiny-v0"}}, [given, *chosen])  # the new word is accepted
        with pytest.raises(UserError, match=f"model.{old} does not exist any more: give model"):
            configure({"env": {"id": "worldvae/Tiny-v0"}}, [f"model.{old}=3"])


def test_no_perceptron_of_a_plain_model_is_normalised(make_model) -> None:
    model: SequentialVAE = make_model((1, 16, 16), vector=3, depth=4, perceptron="plain", trunk="strided")
    normalised = [name for name, part in model.named_modules() if isinstance(part, nn.LayerNorm | nn.SiLU)]
    convolutions = ("senses.encoders.pixels", "senses.decoders.pixels")
    assert normalised and all(name.startswith(convolutions) for name in normalised)


def test_in_two_stages_the_dynamics_learn_on_latents_that_they_do_not_shape(make_model, make_batch) -> None:
    model: SequentialVAE = make_model((1, 16, 16), vector=3, depth=4, stages="two", prior="mixture")
    rows = make_batch(model, 4, 6)
    terms = model.elbo(rows, model.observe(rows, generator=torch.Generator().manual_seed(0)))
    vae = [*model.senses.encoders.parameters(), *model.posterior.parameters()]
    for term in (terms.kl_dynamics, terms.reward, terms.continuation):
        found = torch.autograd.grad(term.sum(), vae, allow_unused=True, retain_graph=True)
        assert all(gradient is None or not gradient.any() for gradient in found)
    dynamics = [*model.memory.parameters(), *model.prior.parameters()]
    assert terms.pixels is not None and terms.vector is not None
    for term in (terms.pixels, terms.vector, terms.kl_representation):
        found = torch.autograd.grad(term.sum(), dynamics, allow_unused=True, retain_graph=True)
        assert all(gradient is None or not gradient.any() for gradient in found)
    assert all(g.any() for g in torch.autograd.grad(terms.kl_dynamics.sum(), dynamics, retain_graph=True))
    used = torch.autograd.grad((terms.pixels + terms.kl_representation).sum(), vae, allow_unused=True)
    assert sum(g is not None and bool(g.any()) for g in used) > len(vae) // 2


def test_a_gaussian_reward_is_calibrated_too(make_model, make_batch) -> None:
    model = make_model(None, vector=3, awake=False, reward="gaussian", perceptron="bypassed")
    rows = make_batch(model, 4, 5)
    model.calibrate(rows.observation, 7 * rows.reward - 2)
    reward = model.reward(model.observe(rows).posterior)
    assert torch.allclose(reward.mean, (7 * rows.reward - 2).mean().expand(4, 5))
    assert torch.allclose(reward.stddev, (7 * rows.reward).std(correction=0).expand(4, 5))
    assert reward.log_prob(rows.reward).shape == (4, 5)
    other = make_model(None, vector=3, awake=False)
    other.calibrate(rows.observation, rows.reward)  # a two-hot needs no units
    model.calibrate(rows.observation, torch.zeros_like(rows.reward))
    assert float(model.reward_head.scale) == 1.0  # without any reward so far, the scale is unknown
    assert torch.equal(other.reward(other.observe(rows).posterior).mean, torch.zeros(4, 5))
