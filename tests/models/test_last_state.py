"""Dreams with `last_only`: the numbers are the same, and no other state is kept."""

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from worldvae.memory import LatentState
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.types import Dream, State, VectorState

Maker = Callable[..., SequentialVAE]
PARTS = [("gru", "gaussian"), ("block_gru", "categorical"), ("markov", "gaussian"), ("transformer", "gaussian")]


def dreams(model: SequentialVAE, horizon: int, policy: bool) -> list[Dream]:
    def act(state: State) -> Tensor:
        return torch.tanh(state.features[:, :2])

    start, actions = model.initial(3), torch.rand(3, horizon, 2, generator=torch.Generator().manual_seed(1))
    given = (act, horizon) if policy else (actions,)
    noise = model.noise((horizon, 3), torch.Generator().manual_seed(0))
    return [model.imagine(start, *given, noise=noise, last_only=last) for last in (False, True)]


@pytest.mark.parametrize("policy", [False, True], ids=["actions", "policy"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("grad", [False, True], ids=["plain", "grad"])
@pytest.mark.parametrize(("memory", "latent"), PARTS)
def test_the_numbers_are_those_of_a_whole_dream(
    make_model: Maker, memory: str, latent: str, grad: bool, horizon: int, precision: str, policy: bool
) -> None:
    model = make_model(memory=memory, latent=latent, precision=precision)
    with torch.set_grad_enabled(grad):
        whole, last = dreams(model, horizon, policy)
    assert torch.equal(last.rewards, whole.rewards) and torch.equal(last.continuations, whole.continuations)
    assert torch.equal(last.actions, whole.actions) and last.rewards.shape == (3, horizon)
    ours, theirs = last.states.tensors(), whole.states[:, -1:].tensors()
    assert ours.keys() == theirs.keys() and ("past" in ours) == (memory in ("markov", "transformer"))
    assert all(torch.equal(tensor, theirs[name]) and tensor.dtype == torch.float32 for name, tensor in ours.items())


def test_gradients_are_those_of_a_whole_dream(make_model: Maker) -> None:
    model = make_model(memory="transformer")
    found = []
    for dream in dreams(model, 4, policy=True):
        earned = dream.rewards.sum() + dream.states[:, -1].features.square().sum()
        parameters = [*model.memory.parameters(), *model.prior.parameters()]
        found.append(torch.autograd.grad(earned, parameters, allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)


def test_states_that_were_not_requested_are_freed(make_model: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The window of a transformer is most of its state: at most two windows exist at a time."""
    model = make_model(memory="transformer")
    alive: dict[bool, int] = {}
    advance = model.memory.advance
    with torch.no_grad():
        for last_only in (False, True):
            pasts: list[weakref.ref[Tensor]] = []

            def watched(
                state: LatentState, projected: Tensor, pasts: list[weakref.ref[Tensor]] = pasts, last: bool = last_only
            ) -> tuple[Tensor, Tensor | None]:
                memory, past = advance(state, projected)
                assert past is not None
                pasts.append(weakref.ref(past))
                alive[last] = max(alive.get(last, 0), sum(found() is not None for found in pasts))
                return memory, past

            monkeypatch.setattr(model.memory, "advance", watched)
            model.imagine(model.initial(2), torch.zeros(2, 6, 2), last_only=last_only)
    assert alive == {False: 6, True: 2}


def test_the_state_of_another_model_is_refused(make_model: Maker) -> None:
    with pytest.raises(ValueError, match=r"state is a VectorState.*give a LatentState, as model\.initial"):
        make_model().imagine(VectorState(torch.zeros(2, 20)), torch.zeros(2, 3, 2))
