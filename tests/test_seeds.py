"""Seeds that torch distinguishes, and streams that are independent of one another."""

import pytest
import torch
from torch import Tensor

from worldvae.errors import UserError
from worldvae.seeds import HELD_OUT, check_seed, episode_seed, stream


def drawn(seed: int) -> Tensor:
    return torch.randn(8, generator=torch.Generator().manual_seed(seed))


def test_torch_looks_at_32_bits_only() -> None:
    """Why seeds have no more bits, and why adding a large number does not give another stream."""
    assert torch.equal(drawn(3), drawn(3 + 2**40))


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63])
def test_seeds_that_would_be_taken_for_others_are_refused(seed: int) -> None:
    with pytest.raises(UserError, match="take a whole number from 0 to 4294967295"):
        check_seed(seed)
    check_seed(2**32 - 1)


def test_streams_differ_by_seed_and_by_name_and_from_the_seed_itself() -> None:
    seeds = [*range(4), *(stream(seed, name) for seed in range(4) for name in ("dreams", "control"))]
    rows = [tuple(drawn(seed).tolist()) for seed in seeds]
    assert len(set(rows)) == len(seeds)
    assert stream(0, "dreams") == stream(0, "dreams")


@pytest.mark.parametrize("lane", [0, 3, HELD_OUT, HELD_OUT + 1])
def test_seeds_of_episodes_fit_into_a_signed_integer_of_32_bits(lane: int) -> None:
    seeds = [episode_seed(seed, lane, episode) for seed in (0, 2**32 - 1) for episode in range(100)]
    assert min(seeds) >= 0 and 2**30 < max(seeds) < 2**31
    assert len(set(seeds)) == 200
