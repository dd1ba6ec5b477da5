"""The tricks of iCEM, one by one, and its coloured noise compared with its theoretical spectrum."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from worldvae.planning import Draws, ICEMConfig, Plan, Proposal, coloured, discounted_return, plan
from worldvae.types import ActionLayout, Dream, State, VectorState

CONFIG = ICEMConfig(horizon=4, candidates=40, elites=6, iterations=4, discount=1.0)


class Recorder:
    """z' = z + step a, with reward -(z' - 1)^2; stores the imagined actions, `[sample, horizon, action]` per call."""

    def __init__(self, step: float = 1.0) -> None:
        self.step, self.seen = step, list[Tensor]()

    def imagine(self, start: State, actions: Tensor, *_: Any, **__: Any) -> Dream:
        self.seen.append(actions)
        z = start.features.unsqueeze(1) + self.step * actions[..., :1].cumsum(dim=1)
        rewards = -(z[..., 0] - 1).square()
        return Dream(start, VectorState(z), actions, rewards, torch.ones_like(rewards))

    def plan(self, config: ICEMConfig, seed: int = 0, layout: ActionLayout | None = None, **named: Any) -> Plan:
        return plan(
            self,
            VectorState(torch.zeros(1, 1)),
            partial(discounted_return, discount=1.0),
            config,
            torch.Generator().manual_seed(seed),
            layout=layout or ActionLayout(1),
            **named,
        )

    def returns(self, actions: Tensor) -> Tensor:
        return -(actions[..., 0].cumsum(dim=-1) - 1).square().sum(dim=-1)


@pytest.mark.parametrize("horizon", [1, 2, 7, 12])
@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.5])
def test_coloured_noise_has_the_power_spectrum_it_is_named_after(horizon: int, exponent: float) -> None:
    matrix = coloured(horizon, exponent, torch.zeros(1, dtype=torch.float64))
    covariance = matrix @ matrix.T
    assert torch.allclose(covariance.diagonal(), torch.ones(horizon, dtype=torch.float64))
    if exponent == 0:
        assert torch.allclose(matrix, torch.eye(horizon, dtype=torch.float64), atol=1e-12)
    power = torch.fft.rfft(covariance[0]).real  # of a covariance that is stationary on a circle
    frequency = torch.fft.rfftfreq(horizon, dtype=torch.float64)
    frequency[0] = 1 / horizon
    expected = frequency**-exponent
    assert torch.allclose(power / power.sum(), expected / expected.sum())


def test_candidates_are_as_correlated_over_time_as_their_colour_says() -> None:
    """Classes as well as numbers, and every class as often as its probability says."""
    layout, horizon, number = ActionLayout(1, (2,)), 8, 8000
    uninformed = Proposal.uninformed(layout, 1, horizon, 0.2, torch.device("cpu"))
    for exponent in (0.0, 2.0):
        colour = coloured(horizon, exponent, torch.zeros(1))
        found = uninformed.sample(number, Draws(1, torch.zeros(1), torch.Generator().manual_seed(0)), colour)[0]
        next_to = float((colour @ colour.T)[3, 4])
        for column, expected in ((0, next_to), (1, 2 / math.pi * math.asin(next_to))):
            pair = torch.corrcoef(found[:, 3:5, column].T)
            assert float(pair[0, 1]) == pytest.approx(expected, abs=4 / math.sqrt(number))
        assert float(found[..., 1].mean()) == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / number))


def test_iterations_shrink_keep_their_elites_and_end_with_the_mean() -> None:
    world = Recorder()
    found = world.plan(CONFIG)
    kept = 2  # .3 of 6, rounded up
    assert [len(seen) for seen in world.seen] == [40 + kept, 32 + kept, 25 + kept, 20 + kept + 1]
    assert [CONFIG.sampled(i) for i in (0, 3, 9)] == [40, 20, 12]  # never below twice the number of elites
    for before, after in zip(world.seen, world.seen[1:], strict=False):
        best = before[world.returns(before).topk(kept).indices]
        assert torch.equal(after[:kept], best)
    again = Recorder()
    again.plan(replace(CONFIG, kept=0.0))
    assert [len(seen) for seen in again.seen] == [40, 32, 25, 21]
    assert found.elites is not None and found.elites.shape == (1, kept, 4, 1)


def test_the_plan_is_the_best_sequence_ever_seen() -> None:
    for seed in range(5):
        world = Recorder()
        found = world.plan(CONFIG, seed)
        every = torch.cat(world.seen)
        best = world.returns(every).argmax()
        assert torch.equal(found.actions[0], every[best])
        assert float(found.value) == pytest.approx(float(world.returns(every)[best]), abs=1e-6)


def test_elites_move_on_to_the_next_decision_unless_an_episode_began() -> None:
    world, layout = Recorder(), ActionLayout(1, (2,))
    first = world.plan(CONFIG, layout=layout)
    assert first.elites is not None
    world.seen.clear()
    world.plan(CONFIG, seed=1, layout=layout, previous=first)
    assert torch.equal(world.seen[0][:2, :-1], first.elites[0, :, 1:])
    assert not torch.equal(world.seen[0][:2, -1], first.elites[0, :, -1])
    reset, fresh = Recorder(), Recorder()
    reset.plan(CONFIG, seed=1, layout=layout, previous=first, keep=torch.zeros(1))
    fresh.plan(CONFIG, seed=1, layout=layout)
    assert all(torch.equal(a, b) for a, b in zip(reset.seen, fresh.seen, strict=True))


def test_coloured_noise_finds_what_takes_a_sustained_effort() -> None:
    """The goal is ten full steps away: with white noise, successive steps cancel."""
    config = replace(CONFIG, horizon=20, iterations=2)
    white, brown = (
        torch.cat([Recorder(step=0.1).plan(replace(config, colour=colour), seed).value for seed in range(8)])
        for colour in (0.0, 2.0)
    )
    assert float(brown.mean()) > float(white.mean()) + 2 * float(white.std())


@pytest.mark.parametrize("numbers", [{"decay": 0.5}, {"kept": 1.5}, {"momentum": 1.0}])
def test_impossible_numbers_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(numbers))):
        ICEMConfig(**numbers)  # type: ignore[arg-type]
