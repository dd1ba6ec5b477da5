"""A model of the linear-Gaussian world that is to control it: the world, what it pays, and where control leads.

The parts are learned one after the other: p(x, z) and its posterior on random episodes; rewards, on what the posterior
makes of episodes; and both once more with episodes that the model has played itself.
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
"""A reward whose mean is as smooth as the true one, and which knows what was done."""

ADAPT_OPTIMISER = replace(OPTIMISER, learning_rate=5e-3)

PLAYED_EPISODES, PLAYED_IN_BATCH, REWARD_ROWS = 256, 16, 2048
"""Episodes that are played, how many of them are in a batch, and rows in an update of rewards."""

MIN_ACTION_SHARE = 0.1
"""Share of `MAX_ACTION` that the calmest of the episodes with rewards act with."""


def rewarded_episodes(world: LinearGaussian, number: int, generator: torch.Generator) -> Batch:
    """Return episodes of uniform actions, each of a reach of its own (log-uniform), with what they earned."""
    reach = MAX_ACTION * MIN_ACTION_SHARE ** torch.rand(number, 1, 1, dtype=torch.float64, generator=generator)
    shape = (number, EPISODE_ROWS, world.B.shape[1])
    actions = reach * (2 * torch.rand(shape, dtype=torch.float64, generator=generator) - 1)
    observations, states = roll_out(world, actions, generator)
    earned = -COST.of(states[:, 1:], actions[:, :-1]).float()
    return replace(rows_of(observations, actions), reward=F.pad(earned, (1, 0)))


def learn_rewards(model: SequentialVAE, rows: Batch, updates: int, generator: torch.Generator) -> None:
    """Fit p(r | h, z) and p(c | h, z), and nothing else, to what the posterior makes of `rows`.

    In one bound with the world, rewards, which know the state without noise, would have a posterior that does not read
    them hide how uncertain it is, and p would be bent. First rows, where nothing has been earned yet, are not fitted.
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
    """Go on learning the world, from random episodes and, a third of each batch, those that were played."""
    learner = Learner(model, ADAPT_OPTIMISER)
    for update in range(updates):
        random = rows_of(*random_episodes(world, 2 * PLAYED_IN_BATCH, EPISODE_ROWS, MAX_ACTION, generator))
        picked = torch.randint(len(played.reward), (PLAYED_IN_BATCH,), generator=generator)
        learner.update(Batch.cat([random, played[picked]], dim=0), generator, update / updates)


def learn_to_control(
    world: str = "stiff", updates: int = 3000, seed: int = 0, *, progress: Callable[[str], object] | None = None
) -> SequentialVAE:
    """Train a model of a linear-Gaussian world: on random episodes, then on those that it plays itself as well.

    Actions at random never lead where a controller keeps the state, near 0, and what perceptrons say there is worth
    little before they have been there.

    Args:
        world: "mild" or "stiff".
        updates: of the optimiser before the model plays, as many after that, and as many on rewards each time.
        seed: of weights, episodes and noise.
        progress: is told in a line, now and then, how far it is.

    Raises:
        ValueError: If there is no such world, or no update.

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
