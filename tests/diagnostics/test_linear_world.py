"""A learned model may come near the exact log-likelihood of its world, and never above it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldvae.diagnostics.linear_world import LINEAR, LinearWorldResult, learn_linear_world, measure, rows_of, table
from worldvae.exact import (
    MILD,
    LinearGaussian,
    bound,
    filtering_chain,
    log_likelihood,
    random_episodes,
    smoothing_chain,
)
from worldvae.exact.kalman import update
from worldvae.types import ActionLayout, ObservationLayout
from worldvae.world_model import WorldModel

REACH = 10.0


def short(**changed: object) -> LinearWorldResult:
    settings = {"updates": 2, "batch": 2, "episodes": 8, "samples": 2} | changed
    return learn_linear_world(**settings)  # type: ignore[arg-type]


def inverse_softplus(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))


@torch.no_grad()
def true_model(world: LinearGaussian, gain: Tensor, covariance: Tensor) -> WorldModel:
    """Return a world model set by hand to the world's own matrices, with a filter of these gains: z is the state.

    Its memory is h = [A z + B u, 0, ...]; the first row is that of z_1 ~ N(0, I).
    """
    model = WorldModel(ObservationLayout(vector=1), ActionLayout(continuous=1), replace(LINEAR, context="filter"))
    for parameter in model.parameters():
        parameter.zero_()
    family = model.family
    mix, prior, encoder, q = model.memory.mix, model.prior.net, model.encoders["vector"], model.posterior.net
    decoder = model.likelihood("vector")
    mix.join.weight[:2] = world.A.float()
    mix.project.weight[:2] = REACH * world.B.float()
    mix.bypass.weight[:2, :2] = torch.eye(2)
    model.memory.start[2] = 1.0  # by which the first row is known
    prior.straight.weight[:2, :2] = torch.eye(2)
    std = world.Q.diagonal().sqrt().float() - family.min_std
    prior.curved[-1].bias[2:4] = 1 + inverse_softplus(std)
    prior.straight.weight[2:4, 2] = inverse_softplus(torch.tensor(1 - family.min_std)) - inverse_softplus(std)
    encoder.straight.weight[0, 0] = 1.0
    scale = torch.linalg.cholesky(covariance).float()
    keep = torch.eye(2, dtype=torch.float64) - gain @ world.C
    q.join.weight[:2, :2] = keep.float()
    q.project.weight[:2, 0] = gain[:, 0].float()
    q.bypass.weight[:2, :2] = torch.eye(2)
    q.rest[2][-1].bias[2:4] = 1 + inverse_softplus(scale.diagonal() - family.min_std)
    q.rest[2][-1].bias[4] = scale[1, 0]
    decoder.trunk.straight.weight[0, -2:] = world.C.float()
    decoder.log_sigma.fill_(math.log(float(world.R.sqrt()) - decoder.floor))
    return model


def test_the_bound_of_a_model_with_the_worlds_own_matrices_is_the_exact_bound(generator: torch.Generator) -> None:
    """Units, rows, actions and the first state: all of them are in this number, for which `exact` has a formula."""
    gain, _, covariance = update(MILD, MILD.Q)
    observations, actions = random_episodes(MILD, 64, 16, REACH, generator)
    model = true_model(MILD, gain, covariance)
    reconstruction, kl = measure(model, rows_of(observations, actions), 32, generator)
    repeat = (16, 1, 1)
    chain = filtering_chain(MILD, observations, actions, gain.repeat(repeat), covariance.repeat(repeat))
    expected = bound(MILD, chain, observations, actions).sum(1)
    found = reconstruction - kl
    error = float((found - expected).std()) / 64**0.5
    assert abs(float((found - expected).mean())) < 4 * error < 1.0
    assert float((log_likelihood(MILD, observations, actions) - expected).mean()) > 4  # what a filter pays


def test_the_exact_posterior_reads_the_actions_that_follow(generator: torch.Generator) -> None:
    """Why the smoother is given them: q(z_t | z_{t-1}, x_{t:T}) alone is another one for other actions."""
    observations, actions = random_episodes(MILD, 1, 6, REACH, generator)
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
    assert first.gap.mean > 10  # nothing is learned by two updates
    assert (first.exact.kind, first.bound.kind) == ("exact", "lower_bound")
    assert json.loads(json.dumps(first.as_json()))["gap"]["mean"] == first.gap.mean
    assert table([first, other]).count("\n") == 3 and f"{first.gap.mean:.2f}" in table([first, other])


def test_with_a_given_p_only_q_is_learned() -> None:
    given = short().model
    found = short(context="filter", given=given, seed=1)
    assert (found.learned, found.context) == ("q", "filter")
    for name in ("memory", "prior", "decoders"):
        ours, theirs = (getattr(model, name).state_dict() for model in (found.model, given))
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
        ({"updates": 0}, "begin at 1"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        short(**wrong)


@pytest.mark.slow
def test_a_learned_model_that_smooths_comes_within_a_nat_of_the_truth_and_not_above_it() -> None:
    found = learn_linear_world("mild", "smooth", updates=3000, seed=0)
    assert -4 * found.gap.error < found.gap.mean <= 1.0, table([found])
