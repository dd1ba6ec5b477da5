"""Control of the linear-quadratic world with a learned model: its cost is measured correctly."""

import json
from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from worldvae.exact import COST, STIFF, kalman_filter, lqg_cost, smoothing_chain
from worldvae.memory import LatentState
from worldvae.models.probabilistic import Inferred
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.studies.linear_control import (
    Expected,
    Plant,
    WorldNoise,
    believe,
    control,
    control_table,
    optimal,
    play,
)
from worldvae.studies.linear_training import CONTROL_MODEL, adapt, learn_rewards, learn_to_control, rewarded_episodes
from worldvae.studies.linear_world import MAX_ACTION, learn_linear_world
from worldvae.types import ActionLayout, Batch, Dream, ObservationLayout, State

pytestmark = pytest.mark.usefixtures("unchecked")


class TrueModel(SequentialVAE):
    """The true world with a controller's two verbs: the Kalman filter, and the expected future."""

    def __init__(self) -> None:
        super().__init__(ObservationLayout(vector=1), ActionLayout(continuous=1), CONTROL_MODEL)

    def observe(
        self,
        batch: Batch,
        state: State | None = None,
        action: Tensor | None = None,
        generator: torch.Generator | None = None,
        *,
        mode: bool = False,
    ) -> Inferred:
        assert batch.observation.vector is not None and mode
        known = kalman_filter(STIFF, batch.observation.vector.double(), MAX_ACTION * batch.action.double()).mean
        return Inferred(LatentState(known.float(), known[..., :0].float()), known.float())

    def imagine(
        self,
        start: State,
        actions: Tensor,
        horizon: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: Tensor | None = None,
        mode: bool = False,
    ) -> Dream:
        assert mode
        z, states, costs = start.memory.double(), [], []
        for action in (MAX_ACTION * actions.double()).unbind(1):
            z = z @ STIFF.A.mT + action @ STIFF.B.mT
            states.append(LatentState(z.float(), start.latent))
            costs.append(COST.of(z, action).float())
        found = torch.stack(costs, dim=1)
        return Dream(start, State.stack(states, dim=1), actions, -found, torch.ones_like(found))


def test_the_world_itself_as_a_model_pays_the_optimum() -> None:
    """Units, rows, actions, the owner of each cost: if one of them were wrong, the cost would exceed the bar."""
    found = control(TrueModel(), "stiff", "cem", episodes=8, burn_in=20, steps=10)
    assert found.optimum == pytest.approx(0.0531763, abs=1e-7)
    assert abs(found.ratio - 1) < 0.15 and found.error < 0.05 * found.optimum
    assert json.loads(json.dumps(found.as_json()))["ratio"] == found.ratio
    assert f"{found.cost:.5f}" in control_table([found, found])


def test_the_optimal_controller_pays_the_optimum() -> None:
    number, steps, burn_in = 400, 40, 30
    draw = WorldNoise(STIFF, number, seed=0)
    plant = draw.plant()
    paid = [plant.step(optimal(plant), draw(STIFF.Q), draw(STIFF.R)) for _ in range(burn_in + steps)]
    mean = torch.stack(paid[burn_in:]).mean(0)
    assert abs(float(mean.mean() - lqg_cost(STIFF))) < 4 * float(mean.std()) / number**0.5


def test_at_the_last_row_the_mode_of_a_smoother_is_what_a_filter_knows(generator: torch.Generator) -> None:
    rows = rewarded_episodes(STIFF, 3, generator)
    assert rows.observation.vector is not None
    seen, done = rows.observation.vector.double(), MAX_ACTION * rows.action.double()
    chain, mode = smoothing_chain(STIFF, seen, done), torch.zeros(3, 2, dtype=torch.float64)
    for t in range(seen.shape[1]):
        mode = mode @ chain.F[t].mT + chain.b[:, t]
    torch.testing.assert_close(mode, kalman_filter(STIFF, seen, done).mean[:, -1])


def test_rewards_arrive_with_the_state_that_an_action_led_to(generator: torch.Generator) -> None:
    rows = rewarded_episodes(STIFF, 200, generator)
    assert rows.observation.vector is not None
    assert bool((rows.reward[:, 0] == 0).all()) and bool((rows.reward[:, 1:] < 0).all())
    calm, wild = rows.action.abs().amax((1, 2)).sort().values[[0, -1]].tolist()
    assert 0.09 < calm < 0.15 and 0.85 < wild < 1  # each episode has its own share of the range
    # The observation is the state's first entry plus noise of .05: the cost of the state is at least its square.
    unpaid = -rows.reward[:, 1:] - 0.01 * (MAX_ACTION * rows.action[:, :-1, 0]).square()
    assert bool((unpaid > -1e-5).all())
    squares = F.relu(rows.observation.vector[:, 1:, 0].square() - unpaid)
    assert float(squares.mean()) < 0.2 < float(unpaid.mean())


@pytest.fixture(scope="module")
def untrained() -> SequentialVAE:
    return learn_linear_world("stiff", "smooth", 1, parts=CONTROL_MODEL, batch=2, episodes=2, samples=1).model


def test_a_belief_reads_all_rows_so_far_and_no_sample(untrained: SequentialVAE) -> None:
    plant = Plant(STIFF, torch.zeros(2, 2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64))
    for _ in range(3):
        plant.step(torch.full((2, 1), 0.5, dtype=torch.float64), torch.zeros(2, 2).double(), torch.zeros(2, 1).double())
    state = believe(untrained, plant)
    assert torch.equal(state.features, believe(untrained, plant).features)
    plant.seen[0] = plant.seen[0] + 1
    assert not torch.equal(state.features, believe(untrained, plant).features)


def test_expected_dreams_have_no_noise(untrained: SequentialVAE, generator: torch.Generator) -> None:
    start = LatentState(torch.randn(3, 8), torch.randn(3, 2), torch.ones(3, 1))
    first, again = (Expected(untrained).imagine(start, torch.zeros(3, 4, 1), generator=generator) for _ in range(2))
    assert torch.equal(first.states.latent, again.states.latent)


def test_rewards_are_learned_and_nothing_else(untrained: SequentialVAE, generator: torch.Generator) -> None:
    rows = rewarded_episodes(STIFF, 64, generator)
    model = deepcopy(untrained)
    learn_rewards(model, rows, 80, generator)
    before, after = untrained.state_dict(), model.state_dict()
    changed = {name for name, x in after.items() if not torch.equal(before[name], x)}
    assert "reward_head.log_sigma" in changed
    assert all(name.startswith(("reward_head.", "continuation_head.")) for name in changed)
    with torch.no_grad():
        found = model.reward(model.observe(rows, mode=True).posterior).mean
    errors = [F.mse_loss(x[:, 1:], rows.reward[:, 1:]) for x in (found, torch.full_like(found, rows.reward.mean()))]
    assert errors[0] < 0.9 * errors[1]


def test_played_episodes_have_rewards(untrained: SequentialVAE) -> None:
    rows = play(untrained, "stiff", "icem", episodes=4, noise=0.5)
    assert rows.observation.vector is not None and rows.observation.vector.shape == (4, 50, 1)
    assert bool((rows.reward[:, 0] == 0).all())
    spent = 0.01 * (MAX_ACTION * rows.action[:, :-1, 0]).square()
    assert bool((-rows.reward[:, 1:] > spent).all()) and float(rows.action.abs().max()) <= 1
    assert torch.equal(rows.action[:, -1], torch.zeros(4, 1))


def test_a_model_adapts_to_what_was_played(untrained: SequentialVAE, generator: torch.Generator) -> None:
    rows = rewarded_episodes(STIFF, 4, generator)
    models = [deepcopy(untrained) for _ in range(2)]
    for model, played in zip(models, (rows, rows.map(lambda x: x[:2])), strict=True):
        adapt(model, STIFF, played, 2, torch.Generator().manual_seed(0))
    weights = [model.posterior.net.join.weight for model in (untrained, *models)]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"world": "wild"}, "world='wild' is not a linear-Gaussian world: take one of mild, stiff"),
        ({"planner": "luck"}, "take one of cem, icem, mppi, gradient"),
        ({"episodes": 1}, "at least 2 episodes"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        control(TrueModel(), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 update, batch and sample"):
        learn_to_control(updates=0)
