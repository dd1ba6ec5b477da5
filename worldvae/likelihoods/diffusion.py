"""A diffusion decoder: the mean of a Gaussian in one pass, and detail that is rendered on demand."""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.nn import functional as F

from worldvae.distributions import IsotropicGaussian, Shape
from worldvae.likelihoods.gaussian import GaussianLikelihood
from worldvae.networks import scale_learning_rate
from worldvae.priors.random_stream import RandomStream

DETAIL_LR_SCALE, DENOISER_LR_SCALE = 10.0, 4.0
"""Learning rates of log s, which has far to go, and of the denoiser, as multiples of the other parameters'
(`networks.scale_learning_rate`). Nothing else depends on the denoiser, and its targets are noisier than all others."""

NOISE_FLOOR = 0.01
"""Default standard deviation of the noise that remains in x."""


class DiffusionLikelihood(GaussianLikelihood):
    """p(x | features): a mean m, and a diffusion of the residual u = (x - m) / s conditioned on m and features.

    u_a = cos(a) u + sin(a) e lies between the residual and the noise e, and its best velocity is
    v = E[cos(a) e - sin(a) u | u_a]. For any v (0 below the angle a0), the bound of the resulting diffusion is

        -log p(x) <= -log N(x; m, s^2) + log(1 / sin a0) E_{a, e} [|v|^2 - 2 v . (cos(a) e - sin(a) u)]

    with log sin(a) uniform between log sin(a0) and 0: the unweighted regression of v. It is the bound of
    `FlowMatchingPrior` with the weight absorbed in the choice of a. It is exact for v = 0, where training starts, and
    as a0 goes to 0, for the best v. tan(a0) = floor / s: without noise at the end, the density of a noiseless x would
    go to infinity. s is fitted as the standard deviation of the Gaussian N(m, s^2), so that u has about unit size
    (EDM's preconditioning).

    Args:
        trunk: network from features to means.
        denoiser: maps (u_a, a, m, features) to v; see `networks.Denoiser`.
        event_shape: (channel, height, width).
        sigma, learned, offset: as in `GaussianLikelihood`, for the Gaussian whose log-density trains the mean and the
            features; sigma is also the initial s.
        floor: standard deviation of the noise that remains in x.
        share: random share of the x in a batch on which the diffusion trains; its term of the log-density is scaled up
            for these, and 0 for the others.
        detach: whether mean and features are trained by N(x; m, sigma^2) alone, as in a `GaussianLikelihood`: latents
            then keep the same information as there, and the diffusion adds what they leave open. Otherwise the
            gradient is that of the bound. The value of `log_prob` is a draw of the bound in both cases.

    Raises:
        ValueError: If floor is not above 0, or not below sigma; if share is not in (0, 1].

    Reference: Kingma et al. 2021, "Variational Diffusion Models", section 4; Karras et al. 2022, "Elucidating the
    Design Space of Diffusion-Based Generative Models", section 5; Preechakul et al. 2022, "Diffusion Autoencoders".
    """

    kind = "lower_bound"

    def __init__(
        self,
        trunk: nn.Module,
        denoiser: nn.Module,
        event_shape: tuple[int, int, int],
        *,
        sigma: float = 0.25,
        learned: str | None = None,
        offset: float = 0.5,
        floor: float = NOISE_FLOOR,
        share: float = 1.0,
        detach: bool = True,
    ) -> None:
        super().__init__(trunk, event_shape, sigma=sigma, learned=learned, offset=offset)
        if not 0 < floor < sigma:
            raise ValueError(f"floor={floor} must be above 0 and below sigma={sigma}")
        if not 0 < share <= 1:
            raise ValueError(f"share={share} must be above 0, and at most 1")
        self.denoiser, self.noise_floor, self.share, self.detach = denoiser, floor, share, detach
        self.log_detail = nn.Parameter(torch.tensor(math.log(sigma - floor)))
        scale_learning_rate([self.log_detail], DETAIL_LR_SCALE)
        scale_learning_rate(denoiser.parameters(), DENOISER_LR_SCALE)
        self.draws = RandomStream()

    @property
    def detail(self) -> Float[Tensor, ""]:
        """Return s, which is at least the noise that remains."""
        return self.noise_floor + self.log_detail.exp()

    @property
    def least(self) -> Float[Tensor, ""]:
        """Return the angle a0 at which the diffusion ends."""
        return torch.atan(self.noise_floor / self.detail.detach())

    def forward(self, features: Float[Tensor, "*batch features"]) -> "Rendering":  # type: ignore[override]  # it shares only the mean with a Gaussian
        """Return p(x | features)."""
        return Rendering(self, super().forward(features), features)

    def velocity(
        self,
        residual: Float[Tensor, "batch *event"],
        angle: Float[Tensor, " batch"],
        mean: Float[Tensor, "batch *event"],
        features: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch *event"]:
        """Return v(u_a, a | m, features)."""
        out: Tensor = self.denoiser(residual, angle, mean - self.offset, features)
        return out

    def excess(
        self,
        value: Float[Tensor, "batch *event"],
        mean: Float[Tensor, "batch *event"],
        features: Float[Tensor, "batch features"],
    ) -> Float[Tensor, " batch"]:
        """Return an unbiased draw, per x, of how much the bound on -log p(x) exceeds -log N(x; m, s^2).

        Each x has one angle and one noise; the angles are stratified over log sin(a), in random order.
        """
        generator = self.draws.generator(value.device)
        options: dict[str, Any] = {"device": value.device, "generator": generator}
        total, count = len(value), math.ceil(self.share * len(value))
        picked = torch.randperm(total, **options)[:count] if count < total else slice(None)
        value, mean, features = value[picked], mean[picked], features[picked]
        place = torch.randperm(count, **options) + torch.rand(count, **options)
        noise = torch.randn(value.shape, **options).to(value.dtype)
        span = -self.least.sin().log()
        angle = torch.asin(torch.exp(-span * place / max(count, 1))).to(value.dtype)
        sin, cos = (x[:, None, None, None] for x in (angle.sin(), angle.cos()))
        u = (value - mean) / self.detail.detach()
        v = self.velocity(torch.addcmul(cos * u, sin, noise), angle, mean, features)
        target = torch.addcmul(cos * noise, sin, u, value=-1)
        found = (F.mse_loss(v, target, reduction="none") - target.square()).flatten(1).sum(1)  # |v|^2 - 2 v . target
        found = found * (span * total / max(count, 1))
        return found if isinstance(picked, slice) else found.new_zeros(total).index_put((picked,), found)

    def integrate(
        self,
        noise: Float[Tensor, "batch *event"],
        mean: Float[Tensor, "batch *event"],
        features: Float[Tensor, "batch features"],
        steps: int,
        *,
        heun: bool = True,
    ) -> Float[Tensor, "batch *event"]:
        """Integrate the velocity from the noise at pi/2 to 0, and return the residual without noise.

        Each step rotates (u_a, v) by its angle, which is the exact flow for a known residual ("Euler": this is DDIM).
        Heun's method adds half of the difference to v at the end of the step. The last step, to the angle 0, ends where
        v was not trained: it returns the residual as predicted at its start, cos(a) u_a - sin(a) v.
        """
        least = float(self.least)
        angles = [max(math.pi / 2 * k / steps, least) for k in range(steps, 0, -1)]
        u = noise
        for a, b in pairwise([*angles, 0.0]):
            v = self._velocity(u, a, mean, features)
            sin, cos = math.sin(a - b), math.cos(a - b)
            ahead = cos * u - sin * v
            if heun and b:
                ahead = ahead + (a - b) / 2 * (sin * u + cos * v - self._velocity(ahead, b, mean, features))
            u = ahead
        return u

    def _velocity(self, u: Tensor, angle: float, mean: Tensor, features: Tensor) -> Tensor:
        return self.velocity(u, u.new_full((len(u),), angle), mean, features)


class Rendering(Distribution):
    """The distribution of a `DiffusionLikelihood`: a fast `mean`, a bound on the density, samples in a few steps.

    Args:
        likelihood: the likelihood, which has the diffusion.
        gaussian: N(m, sigma^2).
        features: conditioning features.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (a name of torch's interface)

    def __init__(
        self, likelihood: DiffusionLikelihood, gaussian: IsotropicGaussian, features: Float[Tensor, "*batch features"]
    ) -> None:
        self.likelihood, self.gaussian, self.features = likelihood, gaussian, features
        device = features.device.type
        # Everything computed later uses the precision in which the mean was computed.
        enabled = torch.is_autocast_enabled(device)
        self.autocast = torch.autocast(device, torch.get_autocast_dtype(device), enabled=enabled)
        super().__init__(gaussian.batch_shape, gaussian.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean of the Gaussian, one pass through the trunk; planners and dreams use it."""
        return self.gaussian.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Return an unbiased draw of the lower bound on log p(x), in nats, summed over the event."""
        model, shape = self.likelihood, self.event_shape
        batch = torch.broadcast_shapes(value.shape[: value.dim() - len(shape)], self.batch_shape)
        x, m = (y.expand(*batch, *shape).reshape(-1, *shape) for y in (value, self.mean))
        features = self.features.expand(*batch, self.features.shape[-1]).reshape(-1, self.features.shape[-1])
        squared = F.mse_loss(m, x, reduction="none").flatten(1).sum(1)
        with self.autocast:
            if not model.detach:
                return (_gaussian(squared, model.detail, shape) - model.excess(x, m, features)).view(batch)
            excess = model.excess(x, m.detach(), features.detach())
        bound = (_gaussian(squared.detach(), model.detail, shape) - excess).view(batch)
        # The gradient is that of nats per entry. Adam would not notice the scale, but the gradients of a model are
        # clipped together, and the sum over all entries would leave almost nothing of the others.
        learnt = _gaussian(squared, self.gaussian.sigma, shape).view(batch) + bound / shape.numel()
        return bound.detach() + learnt - learnt.detach()

    @torch.no_grad()
    def render(self, noise: Float[Tensor, "*batch channel height width"], steps: int) -> Tensor:
        """Return the sharp x that Heun's method reaches from standard normal noise in `steps` steps.

        Raises:
            ValueError: If there is no step.
        """
        if steps < 1:
            raise ValueError(f"steps={steps}: rendering needs at least 1 step")
        shape = self.event_shape
        m, e = (y.expand(*self.batch_shape, *shape).reshape(-1, *shape) for y in (self.mean, noise))
        with self.autocast:
            u = self.likelihood.integrate(e, m, self.features.reshape(-1, self.features.shape[-1]), steps)
        return torch.addcmul(m, self.likelihood.detail, u).view(*self.batch_shape, *shape)

    def sample(self, sample_shape: Shape = (), steps: int = 16) -> Tensor:
        """Draw x by rendering, with noise from torch's default generator."""
        draws = [self.render(torch.randn_like(self.mean), steps) for _ in range(math.prod(sample_shape))]
        return torch.stack(draws).view(*sample_shape, *self.mean.shape)


def _gaussian(squared: Tensor, sigma: Tensor, shape: torch.Size) -> Tensor:
    """Return log N(x; m, sigma^2 I) for |x - m|^2."""
    sigma = sigma.reshape(())
    return -squared / (2 * sigma.square()) - shape.numel() * (sigma.log() + math.log(2 * math.pi) / 2)
