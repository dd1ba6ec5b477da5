"""The draws of a problem depend only on the seed and its own key."""

import math

import pytest
import torch
from torch import Tensor

from worldvae.planning import Draws
from worldvae.seeds import mix

LIKE = torch.zeros(1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(batch: int, keys: list[int] | None, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return some draws, problem by problem, and the position of the generator afterwards."""
    generator = seeded(seed)
    draws = Draws(batch, LIKE, generator, keys)
    first, noise = draws.normal(3, 2), draws.each(lambda g: torch.randn(4, 5, generator=g), dim=1)
    return (
        torch.cat([first.flatten(1), noise.transpose(0, 1).flatten(1)], dim=1),
        draws.uniform(2),
        generator.get_state(),
    )


@pytest.mark.parametrize("keys", [[7], [7, 3, 900], [2, 2, 2, 2, 7]])
def test_a_key_has_the_same_numbers_in_every_batch(keys: list[int]) -> None:
    normal, uniform, after = drawn(len(keys), keys)
    place = keys.index(7)
    alone, alone_uniform, alone_after = drawn(1, [7])
    assert torch.equal(normal[place], alone[0]) and torch.equal(uniform[place], alone_uniform[0])
    assert torch.equal(after, alone_after)
    assert all(torch.equal(normal[i], normal[place]) == (key == 7) for i, key in enumerate(keys))
    assert not torch.equal(normal[place], drawn(1, [7], seed=1)[0][0])


def test_without_keys_all_problems_share_one_stream() -> None:
    many, alone = drawn(5, None), drawn(1, None)
    for found, expected in zip(many[:2], alone[:2], strict=True):
        assert torch.equal(found, expected.expand_as(found))
    assert torch.equal(many[2], alone[2])


def test_streams_of_neighbouring_keys_are_independent_standard_normals() -> None:
    number = 20_000
    rows = Draws(4, LIKE, seeded(), range(4)).normal(number)
    assert torch.allclose(rows @ rows.T / number, torch.eye(4), atol=4 * math.sqrt(2 / number))
    assert float(rows.mean(dim=1).abs().max()) < 4 / math.sqrt(number)


def test_uniform_numbers_fill_the_unit_interval() -> None:
    rows = Draws(2, LIKE.double(), seeded(), [0, 1]).uniform(10_000)
    assert rows.dtype == torch.float64 and float(rows.min()) >= 0 and float(rows.max()) < 1
    assert float(rows.mean()) == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / 20_000))


def test_seeds_are_those_of_the_published_generator() -> None:
    """The first outputs of SplitMix64 with state 1234567 (Rosetta Code, "Pseudo-random numbers/Splitmix64")."""
    assert [mix(1234567, i) for i in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_every_problem_needs_a_key() -> None:
    with pytest.raises(ValueError, match="2 keys were given for 3 problems"):
        Draws(3, LIKE, seeded(), [0, 1])
