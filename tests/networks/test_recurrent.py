"""The GRU compared with torch's; the block GRU with its formula, and its maps with a block-diagonal matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from worldvae.networks import BlockGRUCell, GRUCell
from worldvae.networks.recurrent import BlockLinear


def awake(cell: BlockGRUCell) -> BlockGRUCell:
    """Move every parameter away from its special initial value (zero biases, unit gains)."""
    for parameter in cell.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return cell


def layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-3).sqrt() * gain + bias


def test_the_gru_is_torchs() -> None:
    """The same next memory and the same gradients, for the same weights."""
    torch.manual_seed(0)
    ours, torchs = GRUCell(5, 7).double(), nn.GRUCell(5, 7).double()
    torchs.load_state_dict(ours.state_dict())
    found = []
    for cell in (ours, torchs):
        x, memory = torch.linspace(-2, 2, 15).double().view(3, 5), torch.linspace(-1, 1, 21).double().view(3, 7)
        inputs = [x.requires_grad_(), memory.requires_grad_()]
        after = cell(*inputs)
        found.append([after, *torch.autograd.grad(after.square().sum(), [*inputs, *cell.parameters()])])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_the_gru_keeps_its_memory_in_float32() -> None:
    torch.manual_seed(0)
    cell, x, memory = GRUCell(5, 7).requires_grad_(False), torch.randn(3, 5), torch.randn(3, 7)
    plain = cell(x, memory)
    with torch.autocast("cpu", torch.bfloat16):
        found = cell(x, memory)
    assert found.dtype == torch.float32 and 0 < float((found - plain).abs().max()) < 0.02


few = st.integers(1, 3)


@given(blocks=st.integers(1, 4), inside=few, outside=few, batch=st.lists(few, max_size=2))
@settings(max_examples=25, deadline=None)
def test_block_linear_is_a_block_diagonal_matrix(blocks: int, inside: int, outside: int, batch: list[int]) -> None:
    layer = BlockLinear(blocks * inside, blocks * outside, blocks)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(*batch, blocks * inside)
    assert torch.allclose(layer(x), x @ torch.block_diag(*layer.weight) + layer.bias, atol=1e-5)


@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_against_the_formula_block_by_block(blocks: int) -> None:
    torch.manual_seed(0)
    memory, features, width = 8, 3, 8 // blocks
    cell = awake(BlockGRUCell(features, memory, blocks))
    x, h = torch.randn(5, features), torch.randn(5, memory)
    mixed = []
    for k in range(blocks):
        part = slice(k * width, (k + 1) * width)
        mixed.append(h[:, part] @ cell.mix.weight[k] + x @ cell.weight[part].T)
    hidden = layer_norm(torch.cat(mixed, -1) + cell.mix.bias, cell.norm.weight, cell.norm.bias)
    hidden = hidden * torch.sigmoid(hidden)
    out = []
    for k in range(blocks):
        part = slice(k * width, (k + 1) * width)
        gates = hidden[:, part] @ cell.gates.weight[k] + cell.gates.bias.view(blocks, -1)[k]
        reset, candidate, update = gates.split(width, dim=-1)
        update = torch.sigmoid(update - 1)
        out.append(update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * h[:, part])
    assert torch.allclose(cell(x, h), torch.cat(out, -1), atol=1e-5)


def test_memory_stays_within_its_bounds_and_blocks_do_not_read_each_other_before_the_norm() -> None:
    torch.manual_seed(0)
    cell = awake(BlockGRUCell(3, 16, 8))
    h = torch.zeros(4, 16)
    for _ in range(50):
        h = cell(10 * torch.randn(4, 3), h)
    assert bool((h.abs() < 1).all())
    assert cell.mix.weight.shape == (8, 2, 2)
    assert cell.gates.weight.shape == (8, 2, 6)


@given(batch=st.lists(st.integers(1, 3), max_size=3))
@settings(max_examples=10, deadline=None)
def test_any_batch_shape(batch: list[int]) -> None:
    cell = BlockGRUCell(3, 8, 4)
    x, h = torch.randn(*batch, 3), torch.randn(*batch, 8)
    flat = cell(x.reshape(-1, 3), h.reshape(-1, 8))
    assert torch.allclose(cell(x, h).reshape(-1, 8), flat, atol=1e-6)


def test_a_memory_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="memory_size=10 is not divisible by 8 blocks: take a multiple of 8"):
        BlockGRUCell(3, 10, 8)
