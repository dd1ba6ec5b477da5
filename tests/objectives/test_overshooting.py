"""Overshooting: row by row what its formula says, blind to what it may not see, and only the right side learns."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from worldvae.distributions import kl
from worldvae.learner import Learner, OptimiserConfig
from worldvae.objectives import ELBOConfig, overshooting
from worldvae.types import Batch, State
from worldvae.world_model import Observed, WorldModel

Maker = Callable[..., WorldModel]
Rows = Callable[..., Batch]


def observe(model: WorldModel, rows: Batch) -> Observed:
    return model.observe(rows, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
@pytest.mark.parametrize("start", [0, 2, 4])
def test_every_row_is_its_definition(make_model: Maker, make_batch: Rows, latent: str, start: int) -> None:
    model = make_model(latent=latent)
    rows = make_batch(model, 2, 6)
    observed = observe(model, rows)
    found = overshooting(model, rows, observed, start)
    assert found.shape == (2, 5 - start)
    state = observed.posterior[:, start]
    for t in range(start + 1, 6):
        memory = model.memory(state.memory, state.latent, rows.action[:, t - 1])
        q = model.family(observed.posterior_parameters[:, t])
        assert torch.allclose(found[:, t - start - 1], kl(q, model.prior(memory)), rtol=1e-4, atol=1e-5)
        state = State(memory, model.prior.mode(memory))


def test_one_step_ahead_is_the_kl_of_the_bound(make_model: Maker, make_batch: Rows) -> None:
    model = make_model()
    rows = make_batch(model, 3, 5)
    observed = observe(model, rows)
    one_step = kl(model.family(observed.posterior_parameters), model.family(observed.prior_parameters))
    assert torch.allclose(overshooting(model, rows, observed, 3)[:, 0], one_step[:, 4], rtol=1e-4, atol=1e-5)


def test_it_stops_where_another_episode_begins(make_model: Maker, make_batch: Rows) -> None:
    model = make_model()
    rows = make_batch(model, 2, 6, firsts=(0, 3))
    found = overshooting(model, rows, observe(model, rows), 1)
    assert bool((found[:, 0] > 0).all()) and torch.equal(found[:, 1:], torch.zeros(2, 3))


def test_only_the_dreaming_side_learns(make_model: Maker, make_batch: Rows) -> None:
    model = make_model()
    rows = make_batch(model, 2, 4)
    states = observe(model, rows).posterior
    q = torch.randn(2, 4, model.family.parameter_size, requires_grad=True)
    observed = Observed(State(states.memory.detach().requires_grad_(), states.latent.detach()), q, torch.zeros_like(q))
    loss = overshooting(model, rows, observed, 1).sum()
    wanted: list[Tensor] = [observed.posterior.memory, *model.prior.parameters(), *model.memory.parameters()]
    to_q, to_start, *others = torch.autograd.grad(loss, [q, *wanted], allow_unused=True)
    assert to_q is None
    assert bool((to_start[:, 1] != 0).any()) and not bool(to_start[:, [0, 2, 3]].any())
    assert all(bool((gradient != 0).any()) for gradient in others)


def test_the_learner_adds_it_with_its_weight(make_model: Maker, make_batch: Rows) -> None:
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        model = make_model()
        learner = Learner(model, ELBOConfig(overshoot=weight), OptimiserConfig())
        losses[weight] = float(
            learner.update(make_batch(model, 2, 6), torch.Generator().manual_seed(0))[1]["model/loss"]
        )
    assert losses[1.0] > losses[0.0]
    assert losses[3.0] - losses[0.0] == pytest.approx(3 * (losses[1.0] - losses[0.0]), rel=1e-3)
