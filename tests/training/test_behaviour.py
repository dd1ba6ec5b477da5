"""Behaviour learned in a separate process: what it learns, when results arrive, and what happens if it dies."""

import copy
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from worldvae.agents import ActorCritic, ActorCriticConfig
from worldvae.errors import Diverged, UserError
from worldvae.models.kinds import new_model
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.networks.optimiser import PATIENCE
from worldvae.training.behaviour import Inline, SeparateProcess, leave_cores_to
from worldvae.types import State

CONFIG = ActorCriticConfig(horizon=3, starts=4, hidden=8)
ROWS = 6


@pytest.fixture
def model(make_model: Callable[..., SequentialVAE]) -> SequentialVAE:
    return make_model(pixels=None, vector=3)


def builder(model: SequentialVAE) -> Callable[[], SequentialVAE]:
    return partial(new_model, model.observation_layout, model.action_layout, model.config)


@pytest.fixture
def separate(model: SequentialVAE) -> Iterator[SeparateProcess]:
    found = SeparateProcess(model, builder(model), ActorCritic(model, CONFIG), CONFIG, ROWS, seed=5)
    yield found
    found.close()


def starts(model: SequentialVAE) -> State:
    return model.initial(ROWS).map(torch.randn_like)


def weights(actor_critic: ActorCritic) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in actor_critic.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_it_learns_what_is_learnt_inline_one_update_later(model: SequentialVAE, separate: SeparateProcess) -> None:
    reference = copy.deepcopy(separate.actor_critic)
    reference._model = [model]
    inline = Inline(reference, torch.Generator().manual_seed(5))
    for number in range(3):
        before, states = weights(reference), starts(model)
        late = separate.update(states, 0.1 * number)
        assert same(before, weights(separate.actor_critic))  # of the previous update, no earlier and no later
        assert bool(late) == (number > 0)
        metrics = inline.update(states, 0.1 * number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.01)  # the world model changes meanwhile, which dreams in progress do not notice
    found = separate.finish()
    assert same(weights(reference), weights(separate.actor_critic)) and not same(before, weights(reference))
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(
        {name: float(value) for name, value in found.items()}
    )
    assert separate.finish() == {}


def test_saving_changes_nothing_and_what_is_saved_goes_on_exactly(
    model: SequentialVAE, separate: SeparateProcess
) -> None:
    separate.update(starts(model), 0.0)
    before = weights(separate.actor_critic)
    state = separate.state_dict()
    assert same(before, weights(separate.actor_critic))
    other = SeparateProcess(model, builder(model), copy.deepcopy(separate.actor_critic), CONFIG, ROWS, seed=1)
    other.load_state_dict(state)
    states = starts(model)
    for each in (separate, other):
        assert each.update(states, 0.5)
        each.finish()
    assert same(weights(separate.actor_critic), weights(other.actor_critic))
    assert not same(before, weights(other.actor_critic))
    other.close()


def test_signals_to_the_caller_do_not_stop_it(model: SequentialVAE, separate: SeparateProcess) -> None:
    process = separate._child._process
    assert process.pid is not None
    for number in (signal.SIGTERM, signal.SIGINT):  # as `timeout` and Ctrl-C send them to the whole group
        os.kill(process.pid, number)
    separate.update(starts(model), 0.0)
    assert separate.finish()
    separate.close()
    assert process.exitcode == 0


def test_it_leaves_a_core_to_the_other(
    separate: SeparateProcess, model: SequentialVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldvae.training.behaviour.usable_cores", lambda: 3)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    with leave_cores_to(separate):
        assert torch.get_num_threads() == 2
    with leave_cores_to(Inline(separate.actor_critic, torch.Generator())):
        assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    with leave_cores_to(separate):
        assert torch.get_num_threads() == 1
    torch.set_num_threads(before)


def test_after_a_failure_it_can_still_be_saved(model: SequentialVAE, separate: SeparateProcess) -> None:
    """The pending result is not requested a second time: that would wait for ever."""
    before = separate.state_dict()
    separate._child.send("update", "no number")  # like any bug in it
    separate._under_way = True
    with pytest.raises(RuntimeError, match="the process that learns behaviour failed"):
        separate.finish()
    assert separate.state_dict().keys() == before.keys() | {"metrics"}
    separate.update(starts(model), 0.0)
    assert separate.finish()


def test_what_it_raises_keeps_its_kind(model: SequentialVAE, separate: SeparateProcess) -> None:
    broken = starts(model).map(lambda x: torch.full_like(x, torch.nan))
    with pytest.raises(Diverged, match=r"actor_critic\.optimiser\.learning_rate"):
        for _ in range(PATIENCE + 1):
            separate.update(broken, 0.0)
    separate.finish()


def test_its_death_is_told(model: SequentialVAE, separate: SeparateProcess) -> None:
    process = separate._child._process
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"learns behaviour died with exit code -9.*train.behaviour=inline"):
        separate.update(starts(model), 0.0)
        separate.finish()
