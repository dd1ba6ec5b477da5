"""The backward pass: which rows each row reads, and that it is a GRU."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from worldvae.models.sequential_vae import SequentialVAE
from worldvae.posteriors import Smoother
from worldvae.types import Batch


def smoother() -> Smoother:
    """Return a smoother whose output does not start at zero."""
    torch.manual_seed(0)
    module = Smoother(3, 2, 4).double()
    for parameter in module.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return module


def rows(batch: int, time: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, time, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def acts(batch: int, time: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, time, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(100 + seed))


def test_at_first_it_changes_nothing_and_learns_all_the_same() -> None:
    module = Smoother(3, 2, 4)
    embedding = torch.randn(2, 5, 3)
    out = module(embedding, torch.randn(2, 5, 2), torch.zeros(2, 5, dtype=torch.bool))
    assert torch.equal(out, embedding)
    out.square().sum().backward()
    assert module.out.weight.grad is not None and float(module.out.weight.grad.abs().min()) > 0


@given(
    firsts=st.lists(st.booleans(), min_size=1, max_size=8),
    changed=st.integers(0, 7),
    value=st.sampled_from([1.0, -30.0, float("nan"), float("inf")]),
)
@settings(max_examples=80, deadline=None)
def test_a_row_reads_the_rows_of_its_own_episode_from_itself_on(firsts: list[bool], changed: int, value: float) -> None:
    length = len(firsts)
    changed %= length
    module, embedding, action, is_first = smoother(), rows(1, length), acts(1, length), torch.tensor([firsts])
    other = embedding.clone()
    other[:, changed] = other[:, changed] + value
    with torch.no_grad():
        moved = (module(embedding, action, is_first) != module(other, action, is_first)).any(-1)[0]
    for t in range(length):
        reads = t <= changed and not any(firsts[t + 1 : changed + 1])
        assert bool(moved[t]) == reads, (t, changed, firsts)


@given(
    firsts=st.lists(st.booleans(), min_size=1, max_size=8),
    changed=st.integers(0, 7),
    value=st.sampled_from([1.0, -30.0, float("nan"), float("inf")]),
)
@settings(max_examples=80, deadline=None)
def test_a_row_reads_the_actions_that_led_to_later_rows_of_its_episode(
    firsts: list[bool], changed: int, value: float
) -> None:
    """The action at t led to row t + 1: if that row begins an episode or does not exist, the action is ignored."""
    length = len(firsts)
    changed %= length
    module, embedding, action, is_first = smoother(), rows(1, length), acts(1, length), torch.tensor([firsts])
    other = action.clone()
    other[:, changed] = other[:, changed] + value
    with torch.no_grad():
        moved = (module(embedding, action, is_first) != module(embedding, other, is_first)).any(-1)[0]
    for t in range(length):
        reads = t <= changed < length - 1 and not any(firsts[t + 1 : changed + 2])
        assert bool(moved[t]) == reads, (t, changed, firsts)


@given(lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4), begins=st.booleans())
@settings(max_examples=30, deadline=None)
def test_packed_episodes_are_the_episodes_apart(lengths: list[int], begins: bool) -> None:
    """Whether or not the first row of a slice begins an episode, because nothing precedes it."""
    module = smoother()
    parts = [rows(2, length, seed) for seed, length in enumerate(lengths)]
    moves = [acts(2, length, seed) for seed, length in enumerate(lengths)]
    is_first = torch.zeros(2, sum(lengths), dtype=torch.bool)
    start = 0
    for length in lengths:
        is_first[:, start] = start > 0 or begins
        start += length
    with torch.no_grad():
        packed = module(torch.cat(parts, dim=1), torch.cat(moves, dim=1), is_first)
        apart = [
            module(part, move, torch.zeros(2, part.shape[1], dtype=torch.bool))
            for part, move in zip(parts, moves, strict=True)
        ]
    torch.testing.assert_close(packed, torch.cat(apart, dim=1), rtol=0, atol=1e-12)


def test_rows_of_a_batch_do_not_mix() -> None:
    module, embedding, action = smoother(), rows(3, 6), acts(3, 6)
    is_first = torch.zeros(3, 6, dtype=torch.bool)
    is_first[0, 2] = is_first[2, 4] = True
    with torch.no_grad():
        together = module(embedding, action, is_first)
        alone = torch.cat([module(embedding[i : i + 1], action[i : i + 1], is_first[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 7])
def test_it_is_the_gru_of_torch_run_backwards(length: int) -> None:
    module, embedding, action = smoother(), rows(2, length), acts(2, length)
    reference = nn.GRU(5, 4, batch_first=True).double()
    reference.weight_ih_l0.data = module.project.weight.data
    reference.bias_ih_l0.data = module.project.bias.data
    reference.weight_hh_l0.data = module.recur.weight.data
    reference.bias_hh_l0.data = module.recur.bias.data
    with torch.no_grad():
        led = torch.cat([action[:, :-1], torch.zeros(2, 1, 2, dtype=torch.float64)], dim=1)
        backward = reference(torch.cat([embedding, led], dim=-1).flip(1))[0].flip(1)
        expected = embedding + module.out(backward)
        found = module(embedding, action, torch.zeros(2, length, dtype=torch.bool))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_gradients_reach_every_parameter_and_stop_at_the_border() -> None:
    module, embedding, action = smoother(), rows(1, 6).requires_grad_(), acts(1, 6)
    is_first = torch.tensor([[True, False, False, True, False, False]])
    out = module(embedding, action, is_first)
    (gradient,) = torch.autograd.grad(out[:, 1].sum(), embedding, retain_graph=True)
    assert (gradient != 0).any(-1)[0].tolist() == [False, True, True, False, False, False]
    for name, parameter in module.named_parameters():
        (gradient,) = torch.autograd.grad(out.square().sum(), parameter, retain_graph=True)
        assert float(gradient.abs().max()) > 0, name


def test_it_keeps_the_type_of_the_embedding_under_autocast() -> None:
    module, embedding, action = Smoother(3, 2, 4), torch.randn(2, 5, 3), torch.randn(2, 5, 2)
    is_first = torch.zeros(2, 5, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        assert module(embedding, action, is_first).dtype == torch.float32
        assert module(embedding.bfloat16(), action, is_first).dtype == torch.bfloat16


@given(first=st.integers(1, 4), second=st.integers(1, 4), t=st.integers(0, 7))
@settings(max_examples=12, deadline=None)
def test_the_posterior_of_a_world_model_reads_the_later_actions_of_its_episode(
    make_model: Callable[..., SequentialVAE],
    make_batch: Callable[..., Batch],
    feed_noise: Callable[[SequentialVAE, list[Tensor]], None],
    first: int,
    second: int,
    t: int,
) -> None:
    """Only the actions of its own episode that led to a row: not the last one of an episode or of the slice."""
    model = make_model(context="smooth", memory="markov", perceptron="bypassed", vector=2, pixels=None)
    assert model.smoother is not None
    torch.nn.init.normal_(model.smoother.out.weight)
    length = first + second
    t %= length
    rows, noise = make_batch(model, 2, length, firsts=(0, first)), torch.randn(length, 2, 4)
    action = rows.action.clone()
    action[:, t] = -action[:, t] + 0.5
    feed_noise(model, [noise, noise])
    before = model.observe(rows)
    after = model.observe(Batch(rows.observation, action, rows.reward, rows.termination, rows.is_first))
    moved = (before.parameters - after.parameters).abs().amax(dim=(0, 2)) > 1e-6
    begin, end = (0, first) if t < first else (first, length)
    for row in range(length):
        assert bool(moved[row]) == (begin <= row < end and t < end - 1), (row, t, first, second)
