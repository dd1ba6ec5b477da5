"""A learned model may approach the exact log-likelihood of its world, and never exceeds it."""

import json

import pytest
import torch
from torch import Tensor

from worldvae.exact import MILD, WORLDS, bound, filtering_chain, log_likelihood, random_episodes, smoothing_chain
from worldvae.exact.kalman import update
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.studies.linear_world import (
    MAX_ACTION,
    LinearWorldResult,
    learn_linear_world,
    measure,
    rows_of,
    table,
    with_true_p,
)


def short(**changed: object) -> LinearWorldResult:
    settings = {"updates": 2, "batch": 2, "episodes": 8, "samples": 2} | changed
    return learn_linear_world(**settings)  # type: ignore[arg-type]


@torch.no_grad()
def true_filter(world: str, gain: Tensor, covariance: Tensor) -> SequentialVAE:
    """Return a model with the world's own p and q = N((I - K C) h + K x, S)."""
    model = with_true_p(world)
    model.smoother = None
    encoder, q, family = model.senses.encoders["vector"], model.posterior.net, model.family
    for part in (encoder, q):
        for parameter in part.parameters():
            parameter.zero_()
    encoder.straight.weight[0, 0] = 1.0
    scale = torch.linalg.cholesky(covariance).float()
    q.join.weight[:2, :2] = (torch.eye(2, dtype=torch.float64) - gain @ WORLDS[world].C).float()
    q.project.weight[:2, 0] = gain[:, 0].float()
    q.bypass.weight[:2, :2] = torch.eye(2)
    q.rest[2][-1].bias[2:4] = 1 + (scale.diagonal() - family.min_std).expm1().log()
    q.rest[2][-1].bias[4] = scale[1, 0]
    return model


@pytest.mark.parametrize("name", ["mild", "stiff"])
def test_the_bound_of_a_model_with_the_worlds_own_p_is_the_exact_bound(name: str, generator: torch.Generator) -> None:
    """Units, rows, actions and the first state: this number depends on all of them, and `exact` has its formula."""
    world, number, length = WORLDS[name], 64, 12
    gain, _, covariance = update(world, world.Q)
    observations, actions = random_episodes(world, number, length, MAX_ACTION, generator)
    reconstruction, kl = measure(true_filter(name, gain, covariance), rows_of(observations, actions), 32, generator)
    repeat = (length, 1, 1)
    chain = filtering_chain(world, observations, actions, gain.repeat(repeat), covariance.repeat(repeat))
    expected = bound(world, chain, observations, actions).sum(1)
    difference = reconstruction - kl - expected
    error = float(difference.std()) / number**0.5
    gap = float((log_likelihood(world, observations, actions) - expected).mean())
    assert abs(float(difference.mean())) < 4 * error < gap / 3


def test_the_exact_posterior_reads_the_actions_that_follow(generator: torch.Generator) -> None:
    """Why the smoother reads actions: q(z_t | z_{t-1}, x_{t:T}) differs for other actions."""
    observations, actions = random_episodes(MILD, 1, 6, MAX_ACTION, generator)
    other = actions.clone()
    other[:, 3] += 1
    moved = (smoothing_chain(MILD, observations, actions).b != smoothing_chain(MILD, observations, other).b).any(-1)[0]
    assert moved.tolist() == [True, True, True, True, True, False]


def test_a_result_adds_up_and_is_repeatable() -> None:
    first, again, other = short(), short(), short(seed=1)
    assert (first.bound, first.gap) == (again.bound, again.gap) != (other.bound, other.gap)
    assert first.exact == other.exact  # the held-out episodes are the same for all seeds
    assert first.bound.mean == pytest.approx(first.reconstruction.mean - first.kl.mean)
    assert first.gap.mean == pytest.approx(first.exact.mean - first.bound.mean)
    assert first.gap.mean > 10  # two updates learn nothing
    assert (first.exact.kind, first.bound.kind) == ("exact", "lower_bound")
    assert json.loads(json.dumps(first.as_json()))["gap"]["mean"] == first.gap.mean
    assert table([first, other]).count("\n") == 3 and f"{first.gap.mean:.2f}" in table([first, other])


def test_with_a_given_p_only_q_is_learned() -> None:
    given = short().model
    found = short(context="filter", given=given, seed=1)
    assert (found.learned, found.context) == ("q", "filter")
    for name in ("memory", "prior", "senses.decoders"):
        ours, theirs = (model.get_submodule(name).state_dict() for model in (found.model, given))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    untrained = short(context="filter", given=given, seed=1, updates=1).model
    assert not torch.equal(untrained.posterior.net.join.weight, found.model.posterior.net.join.weight)


def test_progress_is_told() -> None:
    told: list[str] = []
    short(progress=told.append)
    assert len(told) == 1 and told[0].startswith("mild smooth seed 0: update 2 of 2, bound -")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"world": "wild"}, "world='wild' is not a linear-Gaussian world: take one of mild, stiff"),
        ({"context": "future"}, "take filter or smooth"),
        ({"episodes": 1}, "2 held-out episodes"),
        ({"updates": 0}, "1 update, batch and sample"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        short(**wrong)


@pytest.mark.gate(seconds=180)
def test_a_learned_model_that_smooths_comes_within_a_nat_of_the_truth_and_not_above_it() -> None:
    found = learn_linear_world("mild", "smooth", updates=3000, seed=0)
    assert -4 * found.gap.error < found.gap.mean <= 1.0, table([found])
