"""Memories read the state and the action, and are what their formulas say."""

import pytest
import torch
from torch import nn

from worldvae.memory import BlockGRUMemory, GRUMemory
from worldvae.networks import BlockGRUCell

MEMORIES = [GRUMemory, BlockGRUMemory]


@pytest.mark.parametrize("memory", MEMORIES)
def test_every_input_counts_and_rows_do_not_mix(memory: type[GRUMemory] | type[BlockGRUMemory]) -> None:
    torch.manual_seed(0)
    module = memory(3, 2, 16, 8)
    inputs = [torch.randn(5, 16), torch.randn(5, 3), torch.randn(5, 2)]
    out = module(*inputs)
    assert out.shape == (5, module.size) == (5, 16)
    for i in range(3):
        changed = [x.clone() for x in inputs]
        changed[i][2] += torch.randn_like(changed[i][2])
        moved = (module(*changed) - out).abs().amax(dim=1)
        assert moved[2] > 1e-4
        assert torch.equal(moved[[0, 1, 3, 4]], torch.zeros(4))


def test_gru_memory_is_torchs_cell_on_a_mixed_input() -> None:
    torch.manual_seed(0)
    module = GRUMemory(3, 2, 16, 8)
    memory, latent, action = torch.randn(5, 16), torch.randn(5, 3), torch.randn(5, 2)
    reference = nn.GRU(8, 16)
    reference.load_state_dict({f"{name}_l0": value for name, value in module.cell.state_dict().items()})
    expected = reference(module.mix(latent, module.mix.project(action)).unsqueeze(0), memory.unsqueeze(0))[1][0]
    assert torch.allclose(module(memory, latent, action), expected, atol=1e-6)


def test_block_gru_memory_is_its_cell_on_three_branches() -> None:
    torch.manual_seed(0)
    module = BlockGRUMemory(3, 2, 16, 8)
    memory, latent, action = torch.randn(5, 16), torch.randn(5, 3), torch.randn(5, 2)
    branches = [module.from_memory(memory), module.from_latent(latent), module.from_action(action)]
    cell = BlockGRUCell(24, 16)
    cell.load_state_dict(module.cell.state_dict() | {"weight": torch.cat([module.cell.weight, module.move.weight], 1)})
    assert torch.allclose(module(memory, latent, action), cell(torch.cat(branches, -1), memory), atol=1e-6)


@pytest.mark.parametrize("memory", MEMORIES)
def test_the_same_seed_gives_the_same_bits(memory: type[GRUMemory] | type[BlockGRUMemory]) -> None:
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(memory(3, 2, 16, 8)(torch.ones(1, 16), torch.ones(1, 3), torch.ones(1, 2)))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])
