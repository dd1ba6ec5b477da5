"""The three gaps, in a world with exact results and for models of every kind."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from worldvae import exact
from worldvae.diagnostics import Gaps, Level, MovedBound, Slices, gaps, pick_slices
from worldvae.distributions import GaussianFamily, kl
from worldvae.exact import MILD, AffineChain
from worldvae.memory import LatentState, Memory
from worldvae.models.parts import WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.posteriors import AmortisedPosterior
from worldvae.priors import Prior
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout, State

LENGTH, SEEDS = 6, 16
FAMILY = GaussianFamily(2, min_std=0.0)


def parameters_of(mean: Tensor, covariance: Tensor) -> Tensor:
    """Return the parameters of N(mean, diagonal of covariance) in `FAMILY`."""
    std = covariance.diagonal().sqrt() / 2
    raw = 2 * (torch.log(std / (1 - std)) + 2.2)
    return torch.cat([mean, raw.float().expand_as(mean)], dim=-1)


class Whole(Memory):
    """h = (z_{t-1}, u_{t-1}, number of rows so far)."""

    def __init__(self) -> None:
        super().__init__(4)

    def project(self, action: Tensor) -> Tensor:
        return action

    def advance(self, state: State, projected: Tensor) -> tuple[Tensor, None]:
        return torch.cat([state.latent, projected, state.memory[..., 3:] + 1], dim=-1), None


class Dynamics(Prior):
    """p(z_t | h_t) = N(A z + B u, Q), and N(0, P0) in the first row."""

    def forward(self, memory: Tensor) -> Distribution:
        mean = memory[..., :2] @ MILD.A.mT.float() + memory[..., 2:3] @ MILD.B.mT.float()
        std = torch.where(memory[..., 3:] > 1, MILD.Q[0, 0].float(), MILD.P0[0, 0].float()).sqrt()
        return Independent(Normal(mean, std.expand_as(mean), validate_args=False), 1, validate_args=False)

    def kl(self, q: Distribution, latent: Tensor, memory: Tensor) -> Tensor:
        return kl(q, self(memory))


class Answers(AmortisedPosterior):
    """q(z_t | z_{t-1}, x_t) = N(W [z, u, x, 1], S), with a separate (W, S) for the first row."""

    def __init__(self, first: tuple[Tensor, ...], then: tuple[Tensor, ...]) -> None:
        super().__init__(4, 1, FAMILY, 4)
        self.first, self.then = first, then

    def project(self, embedding: Tensor) -> Tensor:
        return embedding

    def parameters_at(self, memory: Tensor, projected: Tensor) -> Tensor:
        known = torch.cat([memory[..., :3], projected, torch.ones_like(projected)], dim=-1)
        first, then = (parameters_of(known @ w.mT.float(), s) for w, s in (self.first, self.then))
        return torch.where(memory[..., 3:] > 1, then, first)


def exact_model(first: tuple[Tensor, ...], then: tuple[Tensor, ...]) -> SequentialVAE:
    config = WorldModelConfig(size="tiny", vector_symlog=False, precision="float32", memory_size=4, gaussian=2)
    model = SequentialVAE(ObservationLayout(None, 1), ActionLayout(continuous=1), config)
    model.memory, model.prior, model.posterior = Whole(), Dynamics(2), Answers(first, then)
    model.senses.encoders["vector"] = nn.Identity()
    decoder = model.senses.likelihood("vector")
    decoder.trunk = nn.Linear(6, 1)
    decoder.trunk.weight.data = torch.cat([torch.zeros(1, 4), MILD.C.float()], dim=1)
    decoder.trunk.bias.data.zero_()
    decoder.log_sigma.data.fill_(math.log(float(MILD.R) ** 0.5 - decoder.floor))
    return model


def rows_of(x: Tensor, u: Tensor) -> Slices:
    none = torch.zeros(x.shape[:2])
    first = (none + torch.arange(x.shape[1])) == 0
    batch = Batch(Observation(None, x.float()), u.float(), none, none.bool(), first)
    zero = torch.zeros(len(x), 4)
    return Slices(batch, LatentState(zero, zero[:, :2]), zero[:, :1])


SHIFT = torch.tensor([0.2, -0.1], dtype=torch.float64)


@pytest.fixture(scope="module")
def world() -> tuple[Tensor, Tensor, float]:
    x, u = exact.reference_episodes(MILD, range(SEEDS), LENGTH)
    return x, u, float(exact.log_likelihood(MILD, x, u).mean()) / LENGTH


def closed(chain: AffineChain, x: Tensor, u: Tensor) -> float:
    return float(exact.bound(MILD, chain, x, u).mean())


def below(level: Level, likelihood: float) -> bool:
    return level.kind == "lower_bound" and level.nats < likelihood + 4 * level.error


def test_the_levels_of_a_filter_in_a_world_that_is_known(world: tuple[Tensor, Tensor, float]) -> None:
    """The encoder is wrong by a constant, and otherwise the best one for every row by itself: p(z_t | z_{t-1}, x_t)."""
    x, u, likelihood = world
    right = exact.locally_optimal_chain(MILD, x, u)
    wrong, weights = AffineChain(right.F, right.b + SHIFT, right.S), []
    for step in (MILD.P0, MILD.Q):
        gain = torch.linalg.solve(MILD.C @ step @ MILD.C.mT + MILD.R, MILD.C @ step).mT
        keep = torch.eye(2, dtype=torch.float64) - gain @ MILD.C
        weights.append(torch.cat([keep @ MILD.A, keep @ MILD.B, gain, SHIFT.unsqueeze(1)], dim=1))
    model = exact_model((weights[0], right.S[0]), (weights[1], right.S[1]))
    found = gaps(model, rows_of(x, u), torch.Generator().manual_seed(0), samples=128)
    encoder, myopic = found.filters["encoder"], found.filters["myopic"]
    assert abs(encoder.nats - closed(wrong, x, u)) < 4 * encoder.error
    best = closed(right, x, u)  # 0.45 nats below log p; the wrong one is 0.76 nats lower
    assert best - 0.1 < myopic.nats < best + 4 * myopic.error
    assert found.amortisation == pytest.approx(best - closed(wrong, x, u), abs=0.1)
    assert found.conditioning > 0.2 and found.approximation > 0
    assert all(below(level, likelihood) for level in (*found.filters.values(), found.ahead, found.importance))
    assert found.importance.nats > likelihood - 0.03
    total = found.amortisation + found.conditioning + found.approximation
    assert encoder.nats + total == pytest.approx(found.importance.nats, abs=1e-4)


def test_the_answers_of_the_exact_posterior_are_found(world: tuple[Tensor, Tensor, float]) -> None:
    """If q depends on z_{t-1} like the exact posterior, offsets that look ahead leave almost no gap."""
    x, u, likelihood = world
    chain = exact.smoothing_chain(MILD, x, u)
    keep, covariance = chain.F[LENGTH // 2], chain.S[LENGTH // 2]
    weights = torch.cat([keep, torch.zeros(2, 3, dtype=torch.float64)], dim=1)
    model = exact_model((weights, covariance), (weights, covariance))
    found = gaps(model, rows_of(x, u), torch.Generator().manual_seed(0), samples=128)
    assert below(found.ahead, likelihood) and found.ahead.nats > likelihood - 0.06
    assert found.conditioning > 0.2 and abs(found.approximation) < 0.06
    assert found.importance.nats == pytest.approx(likelihood, abs=0.01)


def test_a_filter_fitted_to_whole_slices_beats_one_fitted_row_by_row(
    world: tuple[Tensor, Tensor, float],
) -> None:
    """An encoder that repeats the prior needs gains; those that are best for each row by itself are not the best."""
    x, u, likelihood = world
    weights = torch.cat([MILD.A, MILD.B, torch.zeros(2, 2, dtype=torch.float64)], dim=1)
    model = exact_model((weights, MILD.P0), (weights, MILD.Q))
    found = gaps(model, rows_of(x, u), torch.Generator().manual_seed(0), samples=64)
    encoder, myopic, fitted = (found.filters[name].nats for name in ("encoder", "myopic", "fitted"))
    assert encoder < myopic - 1 < myopic < fitted - 1
    assert below(found.filters["fitted"], likelihood)
    assert found.amortisation == pytest.approx(fitted - encoder) and found.decoder_calls == 3 * 60 * 2 + 4 * 64


def slices_of(model: SequentialVAE, rows: Batch, number: int = 4, length: int = 4, seed: int = 0) -> Slices:
    observed = model.observe(rows, generator=torch.Generator().manual_seed(1)).detach()
    valid = torch.ones_like(rows.is_first)
    return pick_slices(model, rows, valid, observed, number, length, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "choice",
    [
        {},
        {"latent": "categorical"},
        {"latent": "full", "memory": "transformer"},
        {"posterior": "flow"},
        {"prior": "vamp"},
        {"stages": "two"},
        {"context": "smooth"},
    ],
    ids=str,
)
def test_models_of_every_kind_have_gaps_and_are_not_changed(make_model, make_batch, choice: dict[str, str]) -> None:
    model = make_model(None, vector=3, **choice)
    slices = slices_of(model, make_batch(model, 3, 9))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def ask(seed: int) -> Gaps:
        return gaps(model, slices, torch.Generator().manual_seed(seed), steps=4, samples=8)

    found = ask(0)
    assert found == ask(0) != ask(1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert found.amortisation >= 0 and found.conditioning >= 0 and found.kind == "estimate"
    assert math.isfinite(found.importance.nats) and (found.slices, found.rows) == (4, 4)
    smooth = choice == {"context": "smooth"}
    assert list(found.filters) == (["encoder"] if smooth else ["encoder", "myopic", "fitted"])
    assert not smooth or (found.conditioning == 0 and found.amortisation > 0)


def test_better_answers_are_found_of_categoricals_too(make_model, make_batch) -> None:
    model = make_model(None, vector=3, latent="categorical")
    with torch.no_grad():
        for parameter in model.posterior.parameters():
            parameter.mul_(5.0)  # an encoder that is certain and wrong
    slices = slices_of(model, make_batch(model, 3, 9))
    found = gaps(model, slices, torch.Generator().manual_seed(0), steps=30, learning_rate=0.2, samples=64)
    assert found.filters["myopic"].nats > found.filters["encoder"].nats + 0.1


def test_without_offsets_it_is_the_bound_of_training(make_model, make_batch, feed_noise) -> None:
    """For slices from the middle of episodes, and with the KL in closed form."""
    model = make_model((1, 8, 12), vector=3)
    slices = slices_of(model, make_batch(model, 3, 9))
    asked = MovedBound(model, slices)
    noise = asked.noise(1, torch.Generator().manual_seed(2))
    feed_noise(model, [noise[0].transpose(0, 1)])
    terms = model.elbo(slices.rows, model.observe(slices.rows, slices.state, slices.action))
    found = asked.bound(torch.zeros(asked.shape), noise)[0]
    torch.testing.assert_close(found, terms.pixels + terms.vector - terms.kl_dynamics, rtol=1e-5, atol=1e-4)
    whole, weights = asked.measure(torch.zeros(asked.shape), noise)
    torch.testing.assert_close(whole[0], found.sum(1), rtol=1e-5, atol=1e-3)
    assert weights.shape == whole.shape == (1, 4)


def test_slices_go_on_from_the_row_before_and_end_with_their_episode(make_model, make_batch) -> None:
    model = make_model(None, vector=3)
    rows = make_batch(model, 2, 9)
    observed = model.observe(rows, generator=torch.Generator().manual_seed(1)).detach()
    valid = torch.arange(9) < torch.tensor([[9], [7]])
    found = pick_slices(model, rows, valid, observed, 99, 4, torch.Generator().manual_seed(0))
    assert found.rows.reward.shape == (3, 4)  # two slices of the first episode, one of the second
    inside = ~found.rows.is_first[:, 0]
    assert inside.sum() == 1
    assert torch.equal(found.state.latent[inside][0], observed.posterior.latent[0, 3])
    assert torch.equal(found.action[inside][0], rows.action[0, 3]) and not found.state.memory[~inside].any()
    assert pick_slices(model, rows, valid, observed, 1, 99, torch.Generator()).rows.reward.shape == (1, 9)


def test_models_and_slices_without_gaps_are_refused(make_model, make_batch) -> None:
    for prior, what in (("hierarchical", "ResidualPosterior"), ("energy", "kind unnormalised")):
        model = make_model(None, vector=3, prior=prior)
        with pytest.raises(ValueError, match=f"AmortisedPosterior and an exact log-density.*{what}"):
            gaps(model, slices_of(model, make_batch(model, 3, 9)), torch.Generator())
    model = make_model(None, vector=3)
    with pytest.raises(ValueError, match="1 slice is too few"):
        gaps(model, slices_of(model, make_batch(model, 3, 9), number=1), torch.Generator())
