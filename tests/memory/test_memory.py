"""Memories read the state and the action, and match their formulas."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from worldvae.memory import BlockGRUMemory, GRUMemory, LatentState, MarkovMemory, Memory, TransformerMemory
from worldvae.networks import BlockGRUCell
from worldvae.types import State

Maker = Callable[[], Memory]
MEMORIES: list[Maker] = [
    lambda: GRUMemory(3, 2, 16, 8),
    lambda: BlockGRUMemory(3, 2, 16, 8),
    lambda: MarkovMemory(3, 2, 16, 8),
    lambda: MarkovMemory(3, 2, 16, 8, kind="bypassed", carry=True),
    lambda: TransformerMemory(3, 2, 16, window=4),
]
memories = pytest.mark.parametrize("make", MEMORIES, ids=["gru", "block_gru", "markov", "markov_action", "transformer"])


def state_of(module: Memory, size: int) -> State:
    past = torch.randn(size, module.past_size) if module.past_size else None
    if isinstance(module, MarkovMemory):
        past = torch.ones(size, 1)  # a step came before
    return LatentState(torch.randn(size, 16), torch.randn(size, 3), past)


@memories
def test_every_input_counts_and_rows_do_not_mix(make: Maker) -> None:
    torch.manual_seed(0)
    module = make()
    state, action = state_of(module, 5), torch.randn(5, 2)
    parts = {"latent": state.latent, "action": action}
    if isinstance(module, TransformerMemory):
        assert state.past is not None
        state.past[:, : module.older] = 1
        parts["past"] = state.past
    elif not isinstance(module, MarkovMemory):
        parts["memory"] = state.memory
    out = module(state, action)
    assert out.shape == (5, module.size) == (5, 16)
    for name, part in parts.items():
        changed = {**vars(state), "action": action, name: part.clone()}
        changed[name][2] += 3 * torch.randn_like(part[2])
        moved = module(LatentState(changed["memory"], changed["latent"], changed["past"]), changed["action"]) - out
        moved = moved.abs().amax(dim=1)
        assert moved[2] > 1e-4, name
        assert torch.equal(moved[[0, 1, 3, 4]], torch.zeros(4)), name


def attend(module: TransformerMemory, tokens: Tensor, window: int) -> Tensor:
    """Compute all steps of `[batch, time, size]` at once: causal attention over whole sequences, within the window."""
    time = tokens.shape[1]
    age = torch.arange(time)[:, None] - torch.arange(time)[None, :]
    masked = (age < 0) | (age >= window)
    for layer in module.layers:
        q, k, v = (
            part.unflatten(-1, (layer.heads, -1)).transpose(1, 2)
            for part in layer.queries_keys_values(layer.norm(tokens)).chunk(3, dim=-1)
        )
        bias = layer.age[:, (window - 1 - age).clamp(0, window - 1)].masked_fill(masked, -torch.inf)
        found = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        tokens = tokens + layer.out(found.transpose(1, 2).flatten(2))
        tokens = tokens + layer.feed(tokens)
    out: Tensor = module.norm(tokens)
    return out


@given(length=st.integers(1, 9), window=st.integers(1, 5), layers=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_transformer_step_by_step_is_causal_attention_over_the_whole(length: int, window: int, layers: int) -> None:
    torch.manual_seed(0)
    module = TransformerMemory(3, 2, 16, layers, window=window)
    for layer in module.layers:
        nn.init.normal_(layer.age)
    latents, actions = torch.randn(2, length, 3), torch.randn(2, length, 2)
    expected = attend(module, module.token(latents, module.project(actions)), window)
    past: Tensor | None = torch.zeros(2, module.past_size)
    for t in range(length):
        state = LatentState(torch.zeros(2, 16), latents[:, t], past)
        memory, past = module.advance(state, module.project(actions[:, t]))
        assert torch.allclose(memory, expected[:, t], atol=1e-5)


def test_transformer_needs_a_size_that_its_heads_share() -> None:
    with pytest.raises(ValueError, match="memory_size=18 is not divisible by 4"):
        TransformerMemory(3, 2, 18)


def test_gru_memory_is_torchs_cell_on_a_mixed_input() -> None:
    torch.manual_seed(0)
    module = GRUMemory(3, 2, 16, 8)
    memory, latent, action = torch.randn(5, 16), torch.randn(5, 3), torch.randn(5, 2)
    reference = nn.GRU(8, 16)
    reference.load_state_dict({f"{name}_l0": value for name, value in module.cell.state_dict().items()})
    expected = reference(module.mix(latent, module.mix.project(action)).unsqueeze(0), memory.unsqueeze(0))[1][0]
    assert torch.allclose(module(LatentState(memory, latent), action), expected, atol=1e-6)


def test_block_gru_memory_is_its_cell_on_three_branches() -> None:
    torch.manual_seed(0)
    module = BlockGRUMemory(3, 2, 16, 8)
    memory, latent, action = torch.randn(5, 16), torch.randn(5, 3), torch.randn(5, 2)
    branches = [module.from_memory(memory), module.from_latent(latent), module.from_action(action)]
    cell = BlockGRUCell(24, 16)
    cell.load_state_dict(module.cell.state_dict() | {"weight": torch.cat([module.cell.weight, module.move.weight], 1)})
    expected = cell(torch.cat(branches, -1), memory)
    assert torch.allclose(module(LatentState(memory, latent), action), expected, atol=1e-6)


def test_the_markov_memory_begins_at_a_vector_of_its_own_whatever_z_and_a_are() -> None:
    torch.manual_seed(0)
    module = MarkovMemory(3, 2, 16, 8)
    torch.nn.init.normal_(module.start)
    past = torch.tensor([[1.0], [0.0], [1.0]])
    state, action = LatentState(torch.randn(3, 16), torch.randn(3, 3), past), torch.randn(3, 2)
    out, after = module.advance(state, module.project(action))
    mixed = module.mix(state.latent, module.project(action))
    assert torch.equal(out[[0, 2]], mixed[[0, 2]]) and torch.equal(out[1], module.start)
    assert bool((after == 1).all())
    for begun in (None, torch.zeros(3, 1)):
        out, after = module.advance(LatentState(state.memory, state.latent, begun), module.project(action))
        assert torch.equal(out, module.start.expand(3, -1)) and bool((after == 1).all())
    out.sum().backward()
    assert module.start.grad is not None and bool((module.start.grad == 3).all())


@memories
def test_the_same_seed_gives_the_same_bits(make: Maker) -> None:
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        module = make()
        past = torch.ones(1, module.past_size) if module.past_size else None
        outs.append(module(LatentState(torch.ones(1, 16), torch.ones(1, 3), past), torch.ones(1, 2)))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_a_markov_memory_that_carries_the_action_ends_with_it() -> None:
    module, action = MarkovMemory(3, 2, 6, 8, carry=True), torch.randn(5, 2)
    state = LatentState(torch.randn(5, 6), torch.randn(5, 3), torch.tensor([[0.0], [1.0], [1.0], [0.0], [1.0]]))
    memory = module(state, action)
    assert torch.equal(memory[:, 4:], action)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module(state, action)[:, 4:], action)
    assert torch.equal(memory[[0, 3], :4], torch.zeros(2, 4))  # the learned beginning
    plain = MarkovMemory(3, 2, 4, 8)
    plain.load_state_dict(module.state_dict())
    assert torch.equal(memory[:, :4], plain(state, action))
    with pytest.raises(ValueError, match="length 2 cannot carry an action of length 2"):
        MarkovMemory(3, 2, 2, 8, carry=True)
