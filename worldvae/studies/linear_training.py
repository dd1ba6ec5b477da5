"""Training of a model that is to control the linear-Gaussian world: dynamics, rewards, and episodes it has played.

The parts are trained one after the other: p(x, z) and its posterior on random episodes; rewards on posterior states;
and then both again, with episodes that the model has played itself.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import chain

import torch
from torch.nn import functional as F

from worldvae.exact import COST, LinearGaussian, named_world, random_episodes, roll_out
from worldvae.memory import LatentState, MarkovConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.networks.optimiser import Optimiser
from worldvae.studies.linear_control import play
from worldvae.studies.linear_world import (
    EPISODE_ROWS,
    LINEAR_MODEL,
    MAX_ACTION,
    OPTIMISER,
    learn_linear_world,
    rows_of,
)
from worldvae.training.learner import Learner
from worldvae.types import Batch, Observation

CONTROL_MODEL = replace(LINEAR_MODEL, markov=MarkovConfig(carry=True), reward="gaussian")
"""A model with a reward whose mean is as smooth as the true one, and whose memory contains the last action."""

ADAPT_OPTIMISER = replace(OPTIMISER, learning_rate=5e-3)

PLAYED_EPISODES, PLAYED_IN_BATCH, REWARD_ROWS = 256, 16, 2048
"""Number of played episodes, how many of them are in a batch, and rows per update of rewards."""

MIN_ACTION_SHARE = 0.1
"""Smallest range of actions in episodes from which rewards are learned, as a share of `MAX_ACTION`."""


def rewarded_episodes(world: LinearGaussian, number: int, generator: torch.Generator) -> Batch:
    """Return episodes of uniform actions with rewards; each episode has its own range of actions (log-uniform)."""
    reach = MAX_ACTION * MIN_ACTION_SHARE ** torch.rand(number, 1, 1, dtype=torch.float64, generator=generator)
    shape = (number, EPISODE_ROWS, world.B.shape[1])
    actions = reach * (2 * torch.rand(shape, dtype=torch.float64, generator=generator) - 1)
    observations, states = roll_out(world, actions, generator)
    earned = -COST.of(states[:, 1:], actions[:, :-1]).float()
    return replace(rows_of(observations, actions), reward=F.pad(earned, (1, 0)))


def learn_rewards(model: SequentialVAE, rows: Batch, updates: int, generator: torch.Generator) -> None:
    """Fit p(r | h, z) and p(c | h, z), and nothing else, to the posterior states of `rows`.

    Rewards depend on the state without noise. As a part of the world's ELBO they would train a posterior that does not
    read them to hide its uncertainty, and bias p. First rows, which have no reward yet, are not fitted.
    """
    model.calibrate(Observation(), rows.reward)
    with torch.no_grad():
        found = model.observe(rows, generator=generator).posterior
    later = ~rows.is_first
    states = LatentState(found.memory, found.latent)[later]
    rewards, goes_on = rows.reward[later], ~rows.termination[later]
    heads = chain(model.reward_head.parameters(), model.continuation_head.parameters())
    optimiser = Optimiser(heads, OPTIMISER)
    for update in range(updates):
        picked = torch.randint(len(rewards), (REWARD_ROWS,), generator=generator)
        reward, continuation = model.reward(states[picked]), model.continuation(states[picked])
        nats = reward.log_prob(rewards[picked]) + continuation.log_prob(goes_on[picked].float())
        optimiser.step(-nats.mean(), update / updates)


def adapt(model: SequentialVAE, world: LinearGaussian, played: Batch, updates: int, generator: torch.Generator) -> None:
    """Continue training the world model on random episodes; a third of each batch are played episodes."""
    learner = Learner(model, ADAPT_OPTIMISER)
    for update in range(updates):
        random = rows_of(*random_episodes(world, 2 * PLAYED_IN_BATCH, EPISODE_ROWS, MAX_ACTION, generator))
        picked = torch.randint(len(played.reward), (PLAYED_IN_BATCH,), generator=generator)
        learner.update(Batch.cat([random, played[picked]], dim=0), generator, update / updates)


def learn_to_control(
    world: str = "stiff", updates: int = 3000, seed: int = 0, *, progress: Callable[[str], object] | None = None
) -> SequentialVAE:
    """Train a model of a linear-Gaussian world: on random episodes, then also on episodes that it plays itself.

    Random actions never lead to where a controller keeps the state, near 0, and perceptrons predict badly where they
    had no data.

    Args:
        world: "mild" or "stiff".
        updates: number of optimiser steps before the model plays, again after that, and for rewards each time.
        seed: seed of weights, episodes and noise.
        progress: called now and then with a line about the progress.

    Raises:
        ValueError: If no world has this name, or there is no update.

    Reference: Hafner et al. 2019, "Learning Latent Dynamics for Planning from Pixels", algorithm 1.
    """
    truth, tell = named_world(world), progress or (lambda line: None)
    found = learn_linear_world(
        world, "smooth", updates, seed, parts=CONTROL_MODEL, episodes=2, samples=1, progress=progress
    )
    model, generator = found.model, torch.Generator().manual_seed(seed)
    rows = rewarded_episodes(truth, 4 * PLAYED_EPISODES, generator)
    learn_rewards(model, rows, updates, generator)
    played = play(model, world, episodes=PLAYED_EPISODES, seed=seed)
    tell(f"{world} seed {seed}: earns {float(played.reward[:, -EPISODE_ROWS // 2 :].mean()):.4f} a step as it explores")
    adapt(model, truth, played, updates, generator)
    learn_rewards(model, Batch.cat([rows, played, played], dim=0), updates, generator)
    return model
