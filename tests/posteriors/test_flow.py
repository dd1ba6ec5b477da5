"""The flow posterior: its density integrates to one, its inverse inverts, and its shapes exceed a Gaussian's."""

import pytest
import torch
from torch import Tensor

from worldvae.distributions import LatentFamily
from worldvae.posteriors import FlowFamily, FlowPosterior


def random(latent: int, transforms: int = 4) -> FlowFamily:
    torch.manual_seed(0)
    family = FlowFamily(latent, 6, 16, transforms)
    for parameter in family.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return family


def test_the_density_integrates_to_one() -> None:
    family, context = random(2), torch.randn(6)
    grid = torch.linspace(-12, 12, 1201)
    points = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        density = family(context).log_prob(points).exp()
    assert float(density.sum() * (24 / 1200) ** 2) == pytest.approx(1, abs=1e-3)


def test_drawing_and_scoring_invert_each_other() -> None:
    family = random(5).double()
    context, noise = torch.randn(7, 6).double(), torch.randn(7, 5).double()
    latent, log_prob = family.sample_and_log_prob(context, noise)
    flow = family(context)
    assert torch.allclose(flow.transform(latent), noise, atol=1e-10)
    assert torch.allclose(flow.log_prob(latent), log_prob, atol=1e-9)
    jacobian = torch.func.vmap(torch.func.jacrev(family.sample, argnums=1))(context, noise)
    expected = flow.base.log_prob(noise) - torch.linalg.slogdet(jacobian).logabsdet
    assert torch.allclose(log_prob, expected, atol=1e-9)


def test_an_untrained_flow_is_a_narrow_diagonal_gaussian() -> None:
    family = FlowFamily(3, 6, 16)
    context = torch.zeros(20_000, 6)
    with torch.no_grad():
        samples = family.sample(context, torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)))
        q = family(context[0])
    assert torch.allclose(samples.std(0), torch.full((3,), 0.3), rtol=0.03)
    gaussian = torch.distributions.Normal(family.mode(context[0]), samples.std(0))
    assert torch.allclose(q.log_prob(samples), gaussian.log_prob(samples).sum(-1), atol=0.2)


def banana(z: Tensor) -> Tensor:
    """Return the log-density of a curved ridge (normalised): z_1 ~ N(0, 1), z_2 ~ N(z_1^2 - 1, 0.3^2)."""
    first = torch.distributions.Normal(0.0, 1.0).log_prob(z[..., 0])
    return first + torch.distributions.Normal(z[..., 0] ** 2 - 1, 0.3).log_prob(z[..., 1])


@pytest.mark.parametrize(("transforms", "worst", "best"), [(0, 2.0, 0.8), (4, 0.15, -0.02)])
def test_it_bends_where_a_gaussian_cannot(transforms: int, worst: float, best: float) -> None:
    """KL(q || banana): large for a diagonal Gaussian, small with couplings."""
    torch.manual_seed(0)
    family, generator = FlowFamily(2, 1, 32, transforms), torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(family.parameters(), lr=1e-2)
    context = torch.ones(256, 1)
    for step in range(500):
        latent, log_q = family.sample_and_log_prob(context, torch.randn(256, 2, generator=generator))
        adam.zero_grad()
        (log_q - banana(latent)).mean().backward()
        adam.param_groups[0]["lr"] = 1e-2 * (1 - step / 500)
        adam.step()
    with torch.no_grad():
        latent, log_q = family.sample_and_log_prob(torch.ones(20_000, 1), torch.randn(20_000, 2, generator=generator))
        assert best < float((log_q - banana(latent)).mean()) < worst


def test_one_dimension_is_an_affine_map_and_the_families_fit_the_protocol() -> None:
    family = random(1)
    assert isinstance(family, LatentFamily)
    context, noise = torch.randn(6), torch.linspace(-1, 1, 3).view(3, 1)
    z = family.sample(context.expand(3, 6), noise)
    assert torch.allclose(z[0] + z[2], 2 * z[1], atol=1e-5)
    with pytest.raises(ValueError, match="transforms=-1"):
        FlowFamily(2, 3, 4, -1)


def test_drawing_costs_what_scoring_costs() -> None:
    """One pass through every coupling each; the inverse of an autoregressive flow would take 32."""
    posterior, passes = FlowPosterior(8, 8, 32, 64, transforms=3), 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    for layer in posterior.family.flow.transform.transforms:
        layer.hyper.register_forward_hook(count)
    context, noise = torch.randn(7, 64), torch.randn(7, 32)
    costs = []
    for call in (posterior.sample, posterior.sample_and_log_prob, lambda c, z: posterior.distribution(c).log_prob(z)):
        passes = 0
        call(context, noise)
        costs.append(passes)
    assert costs == [4, 4, 4]  # the affine layer and three couplings
    assert "FlowFamily" in repr(posterior)
