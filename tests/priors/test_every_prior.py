"""Properties of all priors: shapes, reproducible draws, paths of gradients, and agreement of samples and density."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal

from worldvae.distributions import GaussianFamily
from worldvae.posteriors import AmortisedPosterior
from worldvae.priors import (
    EnergyPrior,
    FlowMatchingPrior,
    FlowPrior,
    HierarchicalPrior,
    MixturePrior,
    ParametricPrior,
    Prior,
    ShortcutConfig,
    ShortcutPrior,
    StandardPrior,
    VampPrior,
)

Maker = Callable[[int, int], Prior]


def vamp(memory: int, latent: int, hidden: int = 8, components: int = 3) -> VampPrior:
    posterior = AmortisedPosterior(memory, 3, GaussianFamily(latent), hidden)
    return VampPrior(posterior, memory, 3, hidden, components)


MAKERS: dict[str, Maker] = {
    "standard": lambda memory, latent: StandardPrior(latent),
    "parametric": lambda memory, latent: ParametricPrior(memory, GaussianFamily(latent), 8),
    "mixture": lambda memory, latent: MixturePrior(memory, latent, 8, 3),
    "vamp": vamp,
    "flow": lambda memory, latent: FlowPrior(memory, latent, 8, 2),
    "energy": lambda memory, latent: EnergyPrior(memory, latent, 8, steps=60, step_size=0.05),
    "energy_standard": lambda memory, latent: EnergyPrior(memory, latent, 8, steps=60, step_size=0.05, base="standard"),
    "flow_matching": lambda memory, latent: FlowMatchingPrior(memory, latent, 8, steps=16),
    "flow_matching_gaussian": lambda memory, latent: FlowMatchingPrior(memory, latent, 8, steps=16, base="gaussian"),
    "shortcut": lambda memory, latent: ShortcutPrior(memory, latent, 8, ShortcutConfig(steps=128, grid=128)),
    "hierarchical": lambda memory, latent: HierarchicalPrior(memory, latent, 8, 2),
}
every_prior = pytest.mark.parametrize("name", MAKERS)


def make(name: str, memory: int = 5, latent: int = 2) -> Prior:
    """Make a prior whose parameters are all different from zero."""
    torch.manual_seed(0)
    prior = MAKERS[name](memory, latent)
    for parameter in prior.learnt():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return prior


def posterior_at(*batch: int, latent: int = 2) -> tuple[Tensor, Tensor, Independent, Tensor]:
    """Return leaves (mean, std), the q with these parameters, and a sample of q that depends on them."""
    mean = torch.randn(*batch, latent).requires_grad_()
    std = (0.2 + torch.rand(*batch, latent)).requires_grad_()
    return mean, std, Independent(Normal(mean, std), 1), mean + std * torch.randn(*batch, latent)


@every_prior
@pytest.mark.parametrize("memory", [0, 5])
@given(batch=st.lists(st.integers(1, 3), max_size=3))
@settings(max_examples=4, deadline=None)
def test_any_batch_shape(name: str, memory: int, batch: list[int]) -> None:
    prior, h = make(name, memory, 4), torch.randn(*batch, memory)
    draws = [prior.noise(tuple(batch), h.device, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    first, again, other = (prior.step(h, noise) for noise in draws)
    assert first.shape == prior.mode(h).shape == (*batch, 4)
    assert first.isfinite().all()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(prior.mode(h), prior.mode(h))
    _, _, q, latent = posterior_at(*batch, latent=4)
    for value in (prior.log_prob(first, h), prior.kl(q, latent, h), *prior.balanced_kl(q, latent, h)):
        assert value.shape == tuple(batch)
        assert value.isfinite().all()


@every_prior
def test_elements_of_a_batch_do_not_see_each_other(name: str) -> None:
    prior, h = make(name), torch.randn(3, 5)
    noise = prior.noise((3,), h.device, torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.step(h, noise)[1], prior.step(h[1], noise[1]))
    if prior.kind in ("exact", "unnormalised"):
        z = torch.randn(3, 2)
        torch.testing.assert_close(prior.log_prob(z, h)[1], prior.log_prob(z[1], h[1]))


@every_prior
def test_gradients_of_the_two_directions(name: str) -> None:
    prior = make(name)
    mean, std, q, latent = posterior_at(16)
    memory = torch.randn(16, 5, requires_grad=True)
    dynamics, representation = prior.balanced_kl(q, latent, memory)
    learnt = list(prior.learnt())
    assert bool(learnt) == (name != "standard")
    if learnt:
        for gradient in torch.autograd.grad(dynamics.sum(), [*learnt, memory], retain_graph=True):
            assert gradient.isfinite().all()
            assert float(gradient.abs().max()) > 0
        assert torch.autograd.grad(dynamics.sum(), [mean, std], retain_graph=True, allow_unused=True) == (None, None)
    for gradient in torch.autograd.grad(representation.sum(), [mean, std], retain_graph=True):
        assert (gradient.abs() > 0).all()
    unreached = torch.autograd.grad(representation.sum(), [*learnt, memory], allow_unused=True)
    assert unreached == (None,) * (len(learnt) + 1)
    assert all(parameter.requires_grad for parameter in learnt)


@every_prior
def test_the_two_directions_are_equal_in_value_and_so_is_the_kl(name: str) -> None:
    prior, h = make(name), torch.randn(16, 5)
    _, _, q, latent = posterior_at(16)
    before = prior.state_dict()
    dynamics, representation = prior.balanced_kl(q, latent, h)
    torch.testing.assert_close(dynamics, representation)
    prior.load_state_dict(before)  # also the position of its stream of random numbers
    torch.testing.assert_close(prior.kl(q, latent, h), representation)


@every_prior
def test_gradients_pass_through_a_sample(name: str) -> None:
    prior, memory = make(name), torch.randn(16, 5, requires_grad=True)
    noise = prior.noise((16,), memory.device, torch.Generator().manual_seed(0))
    if name == "standard":
        assert prior.step(memory, noise).grad_fn is None
        return
    sample = prior.step(memory, noise)
    for gradient in torch.autograd.grad((sample * torch.tensor([1.0, 2.0])).sum(), [memory, *prior.parameters()]):
        assert gradient.isfinite().all()
        assert float(gradient.abs().max()) > 0
    with torch.no_grad():  # (torch computes SiLU's gradient by another formula there, equal up to rounding)
        torch.testing.assert_close(prior.step(memory, noise), sample, rtol=1e-5, atol=1e-6)


def grid(limit: float, points: int) -> tuple[Tensor, float]:
    """Return the points of a square grid `[points^2, 2]`, and the area of a cell."""
    axis = torch.linspace(-limit, limit, points)
    return torch.cartesian_prod(axis, axis), (2 * limit / (points - 1)) ** 2


def log_normaliser_on_grid(log_density: Tensor, area: float) -> float:
    """Return the logarithm of the integral of exp(log_density)."""
    return float(log_density.double().logsumexp(0) + math.log(area))


@torch.no_grad()
def log_density(prior: Prior, latent: Tensor, memory: Tensor) -> Tensor:
    """Return the log-density from which `step` samples, up to a constant for some priors."""
    memory = memory.expand(len(latent), -1)
    if isinstance(prior, FlowMatchingPrior | ShortcutPrior):
        return prior.exact_log_prob(latent, memory, steps=48)
    return prior.log_prob(latent, memory)


@every_prior
@pytest.mark.parametrize("memory", [0, 5])
def test_densities_integrate_to_one_and_samples_agree(name: str, memory: int) -> None:
    prior, h, count = make(name, memory), torch.randn(memory), 20_000
    points, area = grid(6.0, 181)
    values = log_density(prior, points, h)
    if prior.kind != "unnormalised":
        assert abs(math.exp(log_normaliser_on_grid(values, area)) - 1) < 1e-3
    weights = torch.softmax(values.double(), 0)
    noise = prior.noise((count,), h.device, torch.Generator().manual_seed(0))
    with torch.no_grad():
        samples = prior.step(h.expand(count, -1), noise).double()

    def moments(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0], z[:, 1], z[:, 0] ** 2, z[:, 1] ** 2, z[:, 0] * z[:, 1], z[:, 0] ** 3], 1)

    drawn, exact = moments(samples), weights @ moments(points.double())
    assert ((drawn.mean(0) - exact).abs() < 4 * drawn.std(0) / count**0.5).all()


LEARNERS: dict[str, Maker] = {
    "mixture": lambda memory, latent: MixturePrior(memory, latent, 16, 4),
    "vamp": lambda memory, latent: vamp(memory, latent, 16, 4),
    "flow": lambda memory, latent: FlowPrior(memory, latent, 16, 2),
    "energy": lambda memory, latent: EnergyPrior(memory, latent, 32),
    "flow_matching": lambda memory, latent: FlowMatchingPrior(memory, latent, 32),
}


@pytest.mark.gate
@pytest.mark.parametrize("name", LEARNERS)
def test_maximum_likelihood_beats_a_single_gaussian_on_two_blobs(name: str, generator: torch.Generator) -> None:
    """The true gain: the entropies differ by 0.83 nats."""
    signs = torch.randint(0, 2, (2, 2000), generator=generator) * 2.0 - 1
    data = 0.3 * torch.randn(2, 2000, 2, generator=generator) + torch.stack([1.2 * signs, 0.6 * signs], -1)
    seen, unseen = data
    gaussian = MultivariateNormal(seen.mean(0), seen.T.cov())
    prior = LEARNERS[name](0, 2)
    adam = torch.optim.Adam(prior.learnt(), lr=0.0015 if name == "energy" else 0.01)
    for _ in range(300):
        batch = seen[torch.randint(0, len(seen), (256,), generator=generator)]
        q = Independent(Normal(batch, torch.full_like(batch, 0.05)), 1)
        loss = prior.balanced_kl(q, batch, batch[:, :0])[0].mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    points, area = grid(5.0, 101)
    empty = torch.zeros(0)
    log_z = log_normaliser_on_grid(log_density(prior, points, empty), area)
    gain = (log_density(prior, unseen, empty) - log_z - gaussian.log_prob(unseen)).mean()
    assert float(gain) > 0.4
