"""The diffusion decoder: compared with the analytic velocity of a Gaussian, and in a world whose mean is a blur."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from worldvae.likelihoods import DiffusionLikelihood, GaussianLikelihood
from worldvae.models.static_vae import VAE
from worldvae.networks import Denoiser

SHAPE = (1, 2, 2)
OFF, SHARE = 0.7, 0.4  # mean and deviation of the residual, in units of s


class Flat(nn.Module):
    """Returns one image plus the mean of the features."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(shape))

    def forward(self, features: Tensor) -> Tensor:
        return self.image + features.mean(-1)[..., None, None, None]


class Analytic(nn.Module):
    """The best velocity for a residual that is N(OFF, SHARE^2): -tan(a) (u_a + its score)."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, residual: Tensor, angle: Tensor, frame: Tensor, features: Tensor) -> Tensor:
        sin, cos = (x[:, None, None, None] for x in (angle.sin(), angle.cos()))
        variance = cos.square() * SHARE**2 + sin.square()
        return -sin * (cos * (SHARE**2 - 1) * residual + OFF) / variance + self.wrong


def analytic(wrong: float = 0.0, **settings: float) -> DiffusionLikelihood:
    made = DiffusionLikelihood(Flat(SHAPE), Analytic(wrong), SHAPE, sigma=0.5, **{"floor": 1e-3, **settings})
    made.log_detail.requires_grad_(False)
    return made


def learnt(shape: tuple[int, int, int] = (3, 8, 12), **settings: bool | float) -> DiffusionLikelihood:
    return DiffusionLikelihood(Flat(shape), Denoiser(5, shape, 8), shape, **settings)


def awake(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))


def test_it_starts_as_the_gaussian_whose_mean_it_shares_with_an_exact_bound() -> None:
    likelihood, gaussian = learnt(), GaussianLikelihood(Flat((3, 8, 12)), (3, 8, 12), sigma=0.25, offset=0.5)
    features, x = torch.randn(2, 3, 5), torch.rand(4, 2, 3, 3, 8, 12)
    ours, plain = likelihood(features), gaussian(features)
    assert torch.equal(ours.mean, plain.mean)
    assert (ours.batch_shape, ours.event_shape) == ((2, 3), (3, 8, 12))
    torch.testing.assert_close(ours.log_prob(x), plain.log_prob(x))
    torch.testing.assert_close(ours.log_prob(x[0]), plain.log_prob(x[0]))
    noise = torch.randn(2, 3, 3, 8, 12)
    drawn = ours.render(noise, 64)  # the last step is the first part of a circle
    torch.testing.assert_close(drawn, plain.mean + 0.25 * noise, atol=1e-3, rtol=0)
    assert ours.sample((2, 2), steps=2).shape == (2, 2, 2, 3, 3, 8, 12)


def test_the_bound_is_tight_at_every_point_for_the_best_velocity() -> None:
    """The mean of 200000 draws is within 4 standard errors, each below 0.05 nats, of the residual's log-density."""
    count, likelihood = 200_000, analytic()
    s = likelihood.detail.item()
    truth = Normal(0.5 + s * OFF, s * SHARE)
    for place in (0.5 + s * OFF, 0.3):
        x = torch.full((count, *SHAPE), place)
        drawn = likelihood(torch.zeros(count, 1)).log_prob(x).detach()
        error = float(drawn.std()) / count**0.5
        assert error < 0.05
        assert abs(float(drawn.mean()) - float(truth.log_prob(x[0]).sum())) < 4 * error


def test_with_a_floor_it_is_below_the_density_of_the_diffusion_that_ends_there() -> None:
    """That density is the Gaussian of the residual at a0, extended to 0 as if the rest were noise."""
    count, likelihood = 40_000, analytic(floor=0.2)
    s, least = likelihood.detail.item(), likelihood.least.item()
    sin, cos = math.sin(least), math.cos(least)
    deviation = (cos**2 * (cos**2 * SHARE**2 + sin**2) + sin**2) ** 0.5
    truth = Normal(0.5 + s * cos**2 * OFF, s * deviation)
    for place in (0.5 + s * OFF, 0.3, 1.3):
        x = torch.full((count, *SHAPE), place)
        drawn = likelihood(torch.zeros(count, 1)).log_prob(x).detach()
        assert float(drawn.mean()) < float(truth.log_prob(x[0]).sum()) + 4 * float(drawn.std()) / count**0.5


def test_the_bound_of_a_worse_velocity_is_lower_by_its_squared_error() -> None:
    """By log(1 / sin a0) |error|^2, on average over data for which the best velocity is the best."""
    count = 40_000
    x = 0.5 + 0.5 * (OFF + SHARE * torch.randn(count, *SHAPE))
    found = []
    for wrong in (0.0, 0.5):
        likelihood = analytic(wrong, floor=0.05)
        likelihood.draws.source.manual_seed(0)
        found.append(likelihood(torch.zeros(count, 1)).log_prob(x).detach())
    difference = found[0] - found[1]
    expected = -math.log(math.sin(float(likelihood.least))) * 4 * 0.5**2
    assert abs(float(difference.mean()) - expected) < 4 * float(difference.std()) / count**0.5


@pytest.mark.parametrize(("heun", "factor"), [(False, 2.0), (True, 4.0)])
def test_halving_the_stride_divides_the_error(heun: bool, factor: float, generator: torch.Generator) -> None:
    noise, zeros = torch.randn(200, *SHAPE, generator=generator), torch.zeros(200, *SHAPE)
    likelihood = analytic(floor=1e-4)
    errors = [
        float((likelihood.integrate(noise, zeros, zeros[..., 0, 0], n, heun=heun) - OFF - SHARE * noise).abs().mean())
        for n in (16, 32, 64)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(factor, rel=0.25)


def test_moments_of_what_is_rendered(generator: torch.Generator) -> None:
    """Within 4 standard errors plus the solver's discretisation error, which is measured for the affine map itself."""
    count, likelihood = 20_000, analytic(floor=1e-4)
    noise = torch.randn(count, *SHAPE, generator=generator)
    u = (likelihood(torch.zeros(count, 1)).render(noise, 16) - 0.5) / likelihood.detail
    step_error = float((u - OFF - SHARE * noise).square().mean().sqrt())
    assert step_error < 0.01
    assert ((u.mean(0) - OFF).abs() < 4 * SHARE / count**0.5 + step_error).all()
    assert ((u.std(0) - SHARE).abs() < 4 * SHARE / (2 * count) ** 0.5 + step_error).all()


def test_a_share_of_the_batch_makes_good_for_the_rest() -> None:
    """Only the sum over the batch is unbiased; a share of 1/4 scales up the result for a quarter of the batch."""
    x, features = torch.rand(512, 3, 8, 12), torch.randn(512, 5)
    sums = []
    for share in (1.0, 0.25):
        torch.manual_seed(0)
        likelihood = learnt(share=share, floor=0.1)
        likelihood.denoiser.last[-1].bias.data[3 * 16 :] = 5.0
        with torch.no_grad():
            excess = likelihood.excess(x, likelihood(features).mean, features)
        assert int((excess != 0).sum()) == 512 * share
        sums.append((float(excess.sum()), float(excess[excess != 0].std()) * 512 * share**0.5))
    (whole, error), (part, part_error) = sums
    assert abs(whole - part) < 4 * (error**2 / 512 + part_error**2 / 128) ** 0.5 < 0.5 * abs(whole)


@pytest.mark.parametrize("detach", [True, False])
def test_what_the_mean_and_the_latents_learn_from(detach: bool) -> None:
    """By default they learn from the Gaussian alone: bit for bit as without a diffusion."""
    likelihood = learnt(detach=detach)
    awake(likelihood)
    features, x = torch.randn(6, 5, requires_grad=True), torch.rand(6, 3, 8, 12)
    ours = likelihood(features)
    inputs = [features, likelihood.trunk.image]
    found = torch.autograd.grad(ours.log_prob(x).sum(), inputs, retain_graph=True)
    plain = torch.autograd.grad(ours.gaussian.log_prob(x).sum(), inputs, retain_graph=True)
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(found, plain, strict=True)) == detach
    own = torch.autograd.grad(ours.log_prob(x).sum(), [likelihood.log_detail, *likelihood.denoiser.parameters()])
    assert all(bool(g.any()) for g in own)


def test_draws_are_its_own_and_part_of_its_state() -> None:
    likelihood, features, x = learnt(), torch.randn(6, 5), torch.rand(6, 3, 8, 12)
    awake(likelihood.denoiser)
    state = {name: value.clone() for name, value in likelihood.state_dict().items()}
    default = torch.get_rng_state()
    first, second = (likelihood(features).log_prob(x) for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), default)
    twin = learnt()
    twin.load_state_dict(state)
    assert torch.equal(twin(features).log_prob(x), first)
    assert torch.equal(twin(features).log_prob(x), second)
    noise = torch.randn(6, 3, 8, 12)
    assert torch.equal(twin(features).render(noise, 2), likelihood(features).render(noise, 2))


def test_the_precision_is_that_of_the_mean() -> None:
    likelihood, features, x = learnt(), torch.randn(64, 5), torch.rand(64, 3, 8, 12)
    awake(likelihood.denoiser)
    seen: list[torch.dtype] = []
    likelihood.denoiser.stem.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        narrow = likelihood(features)
    wide = likelihood(features)
    noise = torch.randn(64, 3, 8, 12)
    torch.testing.assert_close(narrow.render(noise, 2), wide.render(noise, 2), atol=0.03, rtol=0)
    assert narrow.log_prob(x).dtype == torch.float32
    assert set(seen[:3]) == {torch.bfloat16} and seen[3] == torch.float32 and seen[-1] == torch.bfloat16


@pytest.mark.gate
def test_two_places_of_a_dot_are_rendered_one_at_a_time() -> None:
    """The mean shows both places at half the brightness; a rendered frame shows one of them, and each of them at times.

    The bars, set beforehand: 95 % of 200 frames are nearer to one of the two than half the mean's distance to both, and
    each place is drawn in at least a quarter of the frames. (Blurs like the mean would fail the first bar, the same dot
    every time the second one.)
    """
    shape = (1, 4, 8)
    places = torch.zeros(2, *shape)
    places[0, :, 1:3, 1:3] = places[1, :, 1:3, 5:7] = 1.0
    generator = torch.Generator().manual_seed(0)
    likelihood = DiffusionLikelihood(Flat(shape), Denoiser(1, shape, 16, blocks=1), shape)
    adam = torch.optim.Adam(likelihood.parameters(), 1e-2)
    decay = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.05, 250)
    for _ in range(250):
        x = places[torch.randint(2, (64,), generator=generator)]
        loss = -likelihood(torch.zeros(64, 1)).log_prob(x).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay.step()
    p = likelihood(torch.zeros(200, 1))
    blurred = p.mean[:1].detach()
    frames = p.render(torch.randn(200, *shape, generator=generator), 8)
    blur = F.mse_loss(blurred.expand(2, *shape), places).sqrt()
    assert float(blur) > 0.2  # half of a dot's brightness on 8 of 32 pixels is 0.25
    distance = (frames.unsqueeze(1) - places).square().mean((2, 3, 4)).sqrt()
    assert float((distance.min(1).values < blur / 2).float().mean()) >= 0.95
    left = float((distance[:, 0] < distance[:, 1]).float().mean())
    assert 0.25 <= left <= 0.75


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"floor=0.3 must be above 0 and below sigma=0.25"):
        learnt(floor=0.3)
    with pytest.raises(ValueError, match=r"share=0.0 must be above 0"):
        learnt(share=0.0)
    with pytest.raises(ValueError, match="steps=0: rendering needs at least 1"):
        learnt()(torch.zeros(2, 5)).render(torch.zeros(2, 3, 8, 12), 0)


def test_a_bound_of_many_samples_is_an_estimate() -> None:
    """The mean of exponentials of noisy bounds is dominated by draws that are too high."""
    vae = VAE.dense(
        (1, 8, 8), 2, 8, 1, likelihood=lambda trunk, shape: DiffusionLikelihood(trunk, Denoiser(2, shape, 8), shape)
    )
    x = torch.rand(3, 1, 8, 8)
    assert [vae.bound(x, samples).kind for samples in (1, 2)] == ["lower_bound", "estimate"]
    assert VAE.dense((1, 8, 8), 2, 8, 1).bound(x, 2).kind == "lower_bound"
