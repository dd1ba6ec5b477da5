"""Used and unused latents are distinguished, and so are healthy and collapsed posteriors."""

import torch
from torch.distributions import Independent, Normal

from worldvae.diagnostics import active_units, collapse, kl_per_dimension
from worldvae.distributions import CategoricalFamily, GaussianFamily, kl


def test_kl_per_dimension_sums_to_the_kl_for_both_families(generator: torch.Generator) -> None:
    for family, units in ((GaussianFamily(4), 4), (CategoricalFamily(3, 5), 3)):
        q, p = (family(torch.randn(2, 6, family.parameter_size, generator=generator)) for _ in range(2))
        parts = kl_per_dimension(q, p)
        assert parts is not None and parts.shape == (2, 6, units)
        assert torch.allclose(parts.sum(-1), kl(q, p), atol=1e-5)
        assert bool((parts >= -1e-6).all())


def test_families_of_different_kinds_have_no_kl_per_dimension() -> None:
    q = GaussianFamily(4)(torch.zeros(1, 8))
    assert kl_per_dimension(q, CategoricalFamily(2, 2)(torch.zeros(1, 4))) is None


def test_active_units_are_those_whose_mean_moves(generator: torch.Generator) -> None:
    means = torch.randn(500, 3, generator=generator) * torch.tensor([1.0, 0.2, 0.05])
    assert active_units(means).tolist() == [True, True, False]


def test_collapse_is_told_from_health(generator: torch.Generator) -> None:
    zero = Independent(Normal(torch.zeros(500, 4), torch.ones(500, 4)), 1)
    used = torch.randn(500, 4, generator=generator)
    cases = {"healthy": used, "partly collapsed": used * torch.tensor([1.0, 0, 0, 0]), "collapsed": 0 * used}
    for verdict, means in cases.items():
        q = Independent(Normal(means, torch.ones(500, 4)), 1)
        found = collapse(means, kl(q, zero))
        assert found.verdict == verdict
    assert collapse(used, torch.full((500,), 0.01)).verdict == "collapsed"  # its means vary, but carry no information
