"""Parts that fit together make a model that learns; the others are refused with what would fit."""

import pytest
import torch
from torch import nn

from worldvae.models.parts import PRIORS, WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.networks.optimiser import OptimiserConfig
from worldvae.objectives import ELBOConfig
from worldvae.training.learner import Learner

OTHERS = [
    {"latent": "full"},
    {"posterior": "flow"},
    {"posterior": "flow", "prior": "flow"},
    {"context": "smooth"},
    {"bypass": True},
    {"bypass": True, "memory": "markov", "latent": "full", "context": "smooth"},
    {"bypass": True, "memory": "markov", "memory_action": True, "reward": "gaussian"},
    {"plain": True, "reward": "gaussian"},
    {"plain": True, "latent": "categorical"},
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
        ({"latent": "categorical", "prior": "flow"}, "prior=flow is a density over vectors, and latent=categorical"),
        ({"latent": "categorical", "posterior": "flow"}, "posterior=flow is a density over vectors"),
        ({"prior": "hierarchical", "posterior": "flow"}, "posterior=flow does not fit it, latent=gaussian"),
        ({"prior": "hierarchical", "latent": "full"}, "brings a posterior of its own.*latent=full does not fit"),
        ({"prior": "vamp", "latent": "full"}, "mixes diagonal Gaussians.*latent=full does not fit"),
        ({"prior": "hierarchical", "levels": 3, "gaussian": 4}, "gaussian=4 cannot be split into levels=3"),
        ({"stages": "two", "posterior": "flow"}, "stages=two has a posterior of frames.*posterior=flow does not fit"),
        ({"stages": "two", "prior": "vamp"}, "prior=vamp does not fit it"),
        ({"stages": "two", "context": "smooth"}, "context=smooth does not fit"),
        ({"ensemble": 1}, "ensemble=1 cannot disagree"),
        ({"memory_action": True}, "memory_action=true is for memory=markov: memory=gru"),
        ({"bypass": True, "memory": "block_gru"}, "no linear map for memory=block_gru: memory=gru or markov"),
        ({"bypass": True, "prior": "flow"}, "no linear map for prior=flow: prior=own"),
        ({"bypass": True, "posterior": "flow"}, "no linear map for posterior=flow"),
        ({"bypass": True, "stages": "two"}, "no linear map for stages=two"),
        ({"plain": True, "memory": "block_gru"}, "no plain perceptron for memory=block_gru: memory=gru fits"),
        ({"plain": True, "memory": "markov"}, "no plain perceptron for memory=markov: memory=gru fits"),
        ({"plain": True, "prior": "flow"}, "no plain perceptron for prior=flow: prior=own fits"),
        ({"plain": True, "bypass": True}, "plain=true and bypass=true are two kinds of perceptron"),
        ({"components": 0}, "components=0 must be at least 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(choice: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        WorldModelConfig(**choice)


def test_no_perceptron_of_a_plain_model_is_normalised(make_model) -> None:
    model: SequentialVAE = make_model((1, 16, 16), vector=3, depth=4, plain=True, trunk="strided")
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
    model = make_model(None, vector=3, awake=False, reward="gaussian", bypass=True)
    rows = make_batch(model, 4, 5)
    model.calibrate(rows.observation, 7 * rows.reward - 2)
    reward = model.reward(model.observe(rows).posterior)
    assert torch.allclose(reward.mean, (7 * rows.reward - 2).mean().expand(4, 5))
    assert torch.allclose(reward.stddev, (7 * rows.reward).std(correction=0).expand(4, 5))
    assert reward.log_prob(rows.reward).shape == (4, 5)
    other = make_model(None, vector=3, awake=False)
    other.calibrate(rows.observation, rows.reward)  # a two-hot needs no units
    model.calibrate(rows.observation, torch.zeros_like(rows.reward))
    assert float(model.reward_head.scale) == 1.0  # where nothing was earned yet, nothing is known of a scale
    assert torch.equal(other.reward(other.observe(rows).posterior).mean, torch.zeros(4, 5))
