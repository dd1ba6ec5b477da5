"""Batch normalisation by the statistics that the caller chooses."""

import pytest
import torch
from torch import nn

from worldvae.networks.projector import BatchNorm, Projector


def test_over_a_batch_it_is_torchs(generator: torch.Generator) -> None:
    ours, theirs = BatchNorm(5), nn.BatchNorm1d(5)
    x = 3 * torch.randn(40, 5, generator=generator) + 2
    torch.testing.assert_close(ours(x.view(8, 5, 5), of_batch=True).flatten(0, 1), theirs(x))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_module_changes_nothing(training: bool, generator: torch.Generator) -> None:
    norm = BatchNorm(3).train(training)
    x = 2 * torch.randn(20, 3, generator=generator) + 1
    assert torch.equal(norm(x), norm(x)) and float(norm.batches) == 0
    norm(x, of_batch=True)
    assert float(norm.batches) == 1
    torch.testing.assert_close(norm.mean, x.mean(0))
    torch.testing.assert_close(norm(x[:1]), ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt())[:1])


def test_averages_are_plain_at_first_and_then_forget() -> None:
    norm = BatchNorm(1)
    for level in (0.0, 1.0, 2.0):
        norm(torch.full((4, 1), level), of_batch=True)
    assert float(norm.mean) == pytest.approx(1.0)
    for _ in range(100):
        norm(torch.full((4, 1), 5.0), of_batch=True)
    assert float(norm.mean) == pytest.approx(5.0, abs=1e-2)


def test_numbers_that_are_not_finite_do_not_stay() -> None:
    norm = BatchNorm(2)
    norm(torch.tensor([[1.0, 2.0], [3.0, 2.0]]), of_batch=True)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(torch.tensor([[torch.nan, 2.0], [3.0, 2.0]]), of_batch=True)
    assert all(torch.equal(before[name], value) for name, value in norm.state_dict().items())


def test_the_length_of_what_is_projected_is_free(generator: torch.Generator) -> None:
    """A layer norm would give every row the same length."""
    projector = Projector(6, 32, 4)
    lengths = projector(torch.randn(200, 6, generator=generator), of_batch=True).detach().norm(dim=-1)
    assert float(lengths.std() / lengths.mean()) > 0.1
