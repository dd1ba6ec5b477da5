"""A diffusion decoder: the fast mean of a Gaussian, and detail that is rendered on demand."""

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
"""How much faster than the other parameters of a model log s moves (it has far to go), and how much faster the denoiser
learns (`networks.scale_learning_rate`): nothing else depends on it, and what it regresses is noisier than the rest."""

NOISE_FLOOR = 0.01
"""Standard deviation of the noise that is left in x unless another is asked for."""


class DiffusionLikelihood(GaussianLikelihood):
    """p(x | features): a mean m, and a diffusion of the residual u = (x - m) / s that is conditioned on m and features.

    u_a = cos(a) u + sin(a) e is the residual on its way to the noise e, and the best velocity of it is
    v = E[cos(a) e - sin(a) u | u_a]. The bound of the diffusion that follows from any v (0 below the angle a0) is

        -log p(x) <= -log N(x; m, s^2) + log(1 / sin a0) E_{a, e} [|v|^2 - 2 v . (cos(a) e - sin(a) u)]

    with log sin(a) uniform between log sin(a0) and 0: the unweighted regression of v. It is the bound of
    `FlowMatchingPrior`, whose weight is left to the choice of a: equality at v = 0, where training starts, and, as a0
    goes to 0, at the best v. tan(a0) = floor / s, for without noise at the end the density of a noiseless x goes to
    infinity. s is fitted as that of the Gaussian N(m, s^2), so that u is of about unit size (EDM's preconditioning).

    Args:
        trunk: network from features to means.
        denoiser: (u_a, a, m, features) to v; `networks.Denoiser`.
        event_shape: (channel, height, width).
        sigma, learned, offset: of the Gaussian whose log-density shapes the mean and the features, as in
            `GaussianLikelihood`; sigma is also the first s.
        floor: standard deviation of the noise that is left in x.
        share: of the x in a batch on which the diffusion learns, at random; what it adds to the log-density of the
            others is taken to be 0, and scaled up to make good for it.
        detach: whether mean and features learn from N(x; m, sigma^2) alone, as beside a `GaussianLikelihood`: latents
            then keep what they would keep there, and the diffusion paints what they leave open. Else the gradient is
            that of the bound. The value of `log_prob` is a draw of the bound in both cases.

    Raises:
        ValueError: if floor is not above 0, or not below sigma; if share is not in (0, 1].

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
        """Return s, never below the noise that is left."""
        return self.noise_floor + self.log_detail.exp()

    @property
    def least(self) -> Float[Tensor, ""]:
        """Return the angle a0 at which the diffusion ends."""
        return torch.atan(self.noise_floor / self.detail.detach())

    def forward(self, features: Float[Tensor, "*batch features"]) -> "Rendering":  # type: ignore[override]  # of a Gaussian it has the mean
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
        """Return an unbiased draw of the bound on -log p(x) beyond -log N(x; m, s^2), an angle and a noise for each x.

        The angles fall into equal parts of log sin(a), in any order.
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
        """Follow the velocity from the noise at pi/2 down, and return the residual that is left without noise.

        Every stride turns (u_a, v) by its angle, which is the flow of a residual that is known ("Euler": this is DDIM).
        Heun's method adds half of what v at the end differs from that. The last stride, to the angle 0, has no end
        where v is learnt: it leaves the residual as one sees it from there, cos(a) u_a - sin(a) v.
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
    """What a `DiffusionLikelihood` says of x: a `mean` at once, a bound of the density, samples in a few strides.

    Args:
        likelihood: whose diffusion it is.
        gaussian: N(m, sigma^2).
        features: on which it is conditioned.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (the name torch asks for)

    def __init__(
        self, likelihood: DiffusionLikelihood, gaussian: IsotropicGaussian, features: Float[Tensor, "*batch features"]
    ) -> None:
        self.likelihood, self.gaussian, self.features = likelihood, gaussian, features
        device = features.device.type
        # What is asked of it later is computed in the precision in which the mean was.
        enabled = torch.is_autocast_enabled(device)
        self.autocast = torch.autocast(device, torch.get_autocast_dtype(device), enabled=enabled)
        super().__init__(gaussian.batch_shape, gaussian.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean of the Gaussian: one pass through the trunk, and what planners and dreams look at."""
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
        # The gradient is that of nats per number: Adam sees no difference, but all of a model's gradients are clipped
        # together, and that of so many nats would leave nothing of the others.
        learnt = _gaussian(squared, self.gaussian.sigma, shape).view(batch) + bound / shape.numel()
        return bound.detach() + learnt - learnt.detach()

    @torch.no_grad()
    def render(self, noise: Float[Tensor, "*batch channel height width"], steps: int) -> Tensor:
        """Return the sharp x to which `steps` strides of Heun's method carry standard normal noise.

        Raises:
            ValueError: if there is no stride.
        """
        if steps < 1:
            raise ValueError(f"steps={steps}: rendering takes at least 1")
        shape = self.event_shape
        m, e = (y.expand(*self.batch_shape, *shape).reshape(-1, *shape) for y in (self.mean, noise))
        with self.autocast:
            u = self.likelihood.integrate(e, m, self.features.reshape(-1, self.features.shape[-1]), steps)
        return torch.addcmul(m, self.likelihood.detail, u).view(*self.batch_shape, *shape)

    def sample(self, sample_shape: Shape = (), steps: int = 16) -> Tensor:
        """Draw x by rendering, of noise from torch's default generator."""
        draws = [self.render(torch.randn_like(self.mean), steps) for _ in range(math.prod(sample_shape))]
        return torch.stack(draws).view(*sample_shape, *self.mean.shape)


def _gaussian(squared: Tensor, sigma: Tensor, shape: torch.Size) -> Tensor:
    """Return log N(x; m, sigma^2 I) for |x - m|^2."""
    sigma = sigma.reshape(())
    return -squared / (2 * sigma.square()) - shape.numel() * (sigma.log() + math.log(2 * math.pi) / 2)
