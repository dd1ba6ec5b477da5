"""Heads agree where they had data, and disagree elsewhere."""

import pytest
import torch

from worldvae.distributions import CategoricalFamily, GaussianFamily, LatentFamily
from worldvae.priors import Ensemble


@pytest.mark.parametrize("family", [GaussianFamily(2), CategoricalFamily(2, 3)], ids=repr)
def test_heads_agree_where_they_have_learned_and_only_there(family: LatentFamily, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    ensemble = Ensemble(4, family, 32, 5)
    known = torch.randn(256, 4, generator=generator) * torch.tensor([1.0, 1.0, 0.0, 0.0])
    unknown = torch.randn(256, 4, generator=generator) * torch.tensor([0.0, 0.0, 1.0, 1.0])
    parameters = torch.randn(4, family.parameter_size, generator=generator)
    q = family(known @ parameters)
    before = ensemble.disagreement(known).detach().mean()
    adam = torch.optim.Adam(ensemble.parameters(), 5e-3)
    for _ in range(300):
        loss = ensemble.kl(q, q.mean, known).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    after = ensemble.disagreement(known).detach()
    assert after.shape == (256,)
    assert float(after.mean()) < 0.5 * float(before)
    assert float(ensemble.disagreement(unknown).detach().mean()) > 2 * float(after.mean())


def test_it_does_not_shape_the_memory(generator: torch.Generator) -> None:
    ensemble, memory = Ensemble(4, GaussianFamily(2), 8, 2), torch.randn(3, 4, generator=generator, requires_grad=True)
    q = GaussianFamily(2)(torch.randn(3, 4, generator=generator))
    found = torch.autograd.grad(
        ensemble.kl(q, q.mean, memory).sum(), [memory, *ensemble.parameters()], allow_unused=True
    )
    assert found[0] is None and all(gradient is not None and bool(gradient.any()) for gradient in found[1:])


def test_one_head_is_refused() -> None:
    with pytest.raises(ValueError, match="one head cannot disagree"):
        Ensemble(4, GaussianFamily(2), 8, 1)
