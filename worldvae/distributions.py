"""Distributions that torch lacks: latent families, the isotropic Gaussian of images, and the two-hot for rewards.

A *latent family* turns a parameter tensor into a distribution, and noise that was drawn beforehand into a
reparameterised (or straight-through) sample. Drawing the noise of a whole sequence at once keeps everything that does
not depend on the previous step out of the recurrent loop.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    OneHotCategoricalStraightThrough,
    constraints,
)
from torch.distributions import kl_divergence as torch_kl
from torch.nn import functional as F

Shape = torch.Size | list[int] | tuple[int, ...]  # torch's type of a sample shape


@runtime_checkable
class LatentFamily(Protocol):
    """A parametric family over latent vectors."""

    latent_size: int
    parameter_size: int

    def __call__(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return the distribution, with one event axis of length `latent_size`."""
        ...

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the random numbers that `sample` needs, for any leading shape."""
        ...

    def sample(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Turn noise into a sample through which gradients reach the parameters."""
        ...

    def mode(self, parameters: Float[Tensor, "*batch parameter"]) -> Float[Tensor, "*batch latent"]:
        """Return the most probable latent."""
        ...


class GaussianFamily:
    """Diagonal Gaussian: parameters are (mean, raw), std = 2 sigmoid(raw / 2 - 2.2) + min_std.

    An untrained network gives raw near 0, thus a std of 0.3: with more noise, the decoder learns to ignore the latent
    before the encoder has put information into it.

    Reference: Hafner et al. 2021, "Mastering Atari with Discrete World Models" (code, Gaussian latents; shift is ours).
    """

    def __init__(self, size: int, min_std: float = 0.1) -> None:
        self.latent_size = size
        self.parameter_size = 2 * size
        self.min_std = min_std

    def __repr__(self) -> str:
        return f"GaussianFamily(size={self.latent_size}, min_std={self.min_std})"

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = parameters.chunk(2, dim=-1)
        return mean, 2 * torch.sigmoid(raw / 2 - 2.2) + self.min_std

    def __call__(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return an independent Normal with one event axis."""
        mean, std = self._split(parameters)
        return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw standard normal noise."""
        return torch.randn(*shape, self.latent_size, device=device, generator=generator)

    def sample(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return mean + std * noise."""
        mean, std = self._split(parameters)
        return torch.addcmul(mean, std, noise)

    def mode(self, parameters: Float[Tensor, "*batch parameter"]) -> Float[Tensor, "*batch latent"]:
        """Return the mean."""
        return parameters.chunk(2, dim=-1)[0]


class FullGaussianFamily:
    """Gaussian of any covariance: parameters are (mean, raw diagonal, rest of the rows), covariance L L'.

    L is lower triangular with the diagonal softplus(raw - 1) + min_std, about 0.31 for raw = 0, and unconstrained
    entries below it: size (size + 3) / 2 numbers in total. The density costs size^2, which suits short latents only.

    Reference: Kingma & Welling 2019, "An Introduction to Variational Autoencoders", section 2.5.1.
    """

    def __init__(self, size: int, min_std: float = 1e-3) -> None:
        self.latent_size = size
        self.parameter_size = size * (size + 3) // 2
        self.min_std = min_std

    def __repr__(self) -> str:
        return f"FullGaussianFamily(size={self.latent_size}, min_std={self.min_std})"

    def _split(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        size = self.latent_size
        mean, raw, below = parameters.split([size, size, self.parameter_size - 2 * size], dim=-1)
        row, column = torch.tril_indices(size, size, -1, device=parameters.device)
        scale = torch.diag_embed(F.softplus(raw - 1) + self.min_std)
        scale[..., row, column] = below
        return mean, scale

    def __call__(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return N(mean, L L')."""
        mean, scale = self._split(parameters)
        return MultivariateNormal(mean, scale_tril=scale, validate_args=False)

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw standard normal noise."""
        return torch.randn(*shape, self.latent_size, device=device, generator=generator)

    def sample(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return mean + L noise."""
        mean, scale = self._split(parameters)
        return mean + (scale @ noise.to(scale.dtype).unsqueeze(-1)).squeeze(-1)

    def mode(self, parameters: Float[Tensor, "*batch parameter"]) -> Float[Tensor, "*batch latent"]:
        """Return the mean."""
        return parameters[..., : self.latent_size]


class CategoricalFamily:
    """`groups` one-hot categoricals of `classes` each, mixed with 1 % uniform; gradients pass straight through.

    The uniform part ("unimix") keeps every KL finite.

    Reference: Hafner et al. 2023, "Mastering Diverse Domains through World Models", section "World model learning".
    """

    def __init__(self, groups: int, classes: int, unimix: float = 0.01) -> None:
        self.groups, self.classes, self.unimix = groups, classes, unimix
        self.latent_size = self.parameter_size = groups * classes

    def __repr__(self) -> str:
        return f"CategoricalFamily(groups={self.groups}, classes={self.classes}, unimix={self.unimix})"

    def _probs(self, parameters: Tensor) -> Tensor:
        logits = rearrange(parameters, "... (g c) -> ... g c", g=self.groups)
        return (1 - self.unimix) * torch.softmax(logits, dim=-1) + self.unimix / self.classes

    def __call__(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return the distribution over the flattened one-hots (one event axis)."""
        return FlatOneHot(self._probs(parameters))

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw one uniform number per group (the Gumbel trick would need one per class, and a logarithm of it)."""
        return torch.rand(*shape, self.groups, device=device, generator=generator)

    def sample(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return one-hots with the gradient of the probabilities."""
        probs = self._probs(parameters)
        return self._straight_through(probs, one_hot_draw(probs.detach(), noise))

    def mode(self, parameters: Float[Tensor, "*batch parameter"]) -> Float[Tensor, "*batch latent"]:
        """Return the most probable class of each group as one-hots."""
        probs = self._probs(parameters)
        return self._straight_through(probs, F.one_hot(probs.argmax(dim=-1), self.classes).to(probs.dtype))

    def _straight_through(self, probs: Tensor, one_hot: Tensor) -> Tensor:
        return (one_hot + (probs - probs.detach()) if probs.requires_grad else one_hot).flatten(-2)


def one_hot_draw(
    probs: Float[Tensor, "*batch class_"], uniform: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch class_"]:
    """Turn numbers in [0, 1) into one-hot draws from `probs`: the first class whose cumulated probability is larger.

    Args:
        probs: probabilities; a class of probability 0 is never drawn.
        uniform: one number per draw.
    """
    above = probs.cumsum(dim=-1)
    above = (above > uniform.unsqueeze(-1) * above[..., -1:]).to(probs.dtype)
    above[..., -1] = 1  # even if rounding turns a number into 1, or a model's weights are NaN
    drawn = above.clone()
    drawn[..., 1:] -= above[..., :-1]
    return drawn


class FlatOneHot(Distribution):
    """Independent one-hot categoricals whose event is flattened to one axis; `probs` is [*batch, group, class]."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (the name torch asks for)

    def __init__(self, probs: Float[Tensor, "*batch group class_"]) -> None:
        self.base = Independent(OneHotCategoricalStraightThrough(probs, validate_args=False), 1, validate_args=False)
        self.probs, self.groups = probs, probs.shape[-2]
        super().__init__(probs.shape[:-2], torch.Size([probs.shape[-2] * probs.shape[-1]]), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The class probabilities, flattened."""
        return self.base.mean.flatten(-2)

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw one-hots with a straight-through gradient."""
        out: Tensor = self.base.rsample(torch.Size(sample_shape))
        return out.flatten(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of flattened one-hots, summed over groups."""
        out: Tensor = self.base.log_prob(rearrange(value, "... (g c) -> ... g c", g=self.groups))
        return out

    def entropy(self) -> Tensor:
        """Entropy summed over groups."""
        out: Tensor = self.base.entropy()
        return out


def kl(q: Distribution, p: Distribution) -> Float[Tensor, "*batch"]:
    """Return KL(q || p) in nats, summed over the event."""
    if isinstance(q, FlatOneHot) and isinstance(p, FlatOneHot):
        return torch_kl(q.base, p.base)
    if isinstance(q, MultivariateNormal) or isinstance(p, MultivariateNormal):
        return torch_kl(_full(q), _full(p))
    return torch_kl(q, p)


def has_kl(q: Distribution, p: Distribution) -> bool:
    """Return whether `kl` has a closed form for these two."""
    if any(isinstance(d, MultivariateNormal) for d in (q, p)):
        return all(isinstance(d, MultivariateNormal) or _is_diagonal(d) for d in (q, p))
    return any(all(isinstance(d, kind) for d in (q, p)) for kind in (FlatOneHot, Independent))


def detached(distribution: Distribution) -> Distribution:
    """Return the distribution with constant parameters: a product of Normals, or of categoricals, or a full Normal."""
    if isinstance(distribution, FlatOneHot):
        return FlatOneHot(distribution.probs.detach())
    if isinstance(distribution, MultivariateNormal):
        scale = distribution.scale_tril.detach()
        return MultivariateNormal(distribution.loc.detach(), scale_tril=scale, validate_args=False)
    assert isinstance(distribution, Independent)
    base = distribution.base_dist
    return Independent(Normal(base.loc.detach(), base.scale.detach(), validate_args=False), 1, validate_args=False)


def _is_diagonal(distribution: Distribution) -> bool:
    return isinstance(distribution, Independent) and isinstance(distribution.base_dist, Normal)


def _full(distribution: Distribution) -> Distribution:
    """Return a Normal, diagonal or not, with a covariance matrix: torch has the KL of two such Normals."""
    if isinstance(distribution, MultivariateNormal):
        return distribution
    scale = torch.diag_embed(distribution.stddev)
    return MultivariateNormal(distribution.mean, scale_tril=scale, validate_args=False)


def full_precision(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return a network's output as float32, or as float64 if the network computes in float64."""
    return x if x.dtype == torch.float64 else x.float()


class IsotropicGaussian(Distribution):
    """N(mean, sigma^2 I) over the last `event_dims` axes, with a log-probability that is cheap for large images.

    log p(x) = -|x - mean|^2 / (2 sigma^2) - D log sigma - D/2 log 2 pi;  `sigma` broadcasts over the event.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (the name torch asks for)

    def __init__(self, mean: Float[Tensor, "*shape"], sigma: Float[Tensor, "..."], event_dims: int) -> None:
        self.loc, self.sigma = mean, sigma
        split = mean.dim() - event_dims
        super().__init__(mean.shape[:split], mean.shape[split:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.loc

    @property
    def stddev(self) -> Tensor:
        """The standard deviation, in the shape of the mean."""
        return self.sigma.expand_as(self.loc)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draw x = mean + sigma * noise."""
        mean = self.loc.detach().expand(*sample_shape, *self.loc.shape)
        return mean + self.sigma.detach() * torch.randn_like(mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, summed over the event."""
        dims = len(self.event_shape)
        size = math.prod(self.event_shape)
        if self.sigma.numel() == 1:
            sigma = self.sigma.reshape(())
            squared = self._squared(value).flatten(-dims).sum(-1) / (2 * sigma.square())
            log_sigma = size * sigma.log()
        else:
            squared = (self._squared(value) / self.sigma.square()).flatten(-dims).sum(-1) / 2
            log_sigma = self.sigma.log().expand(self.event_shape).sum()
        return -(squared + log_sigma + size / 2 * math.log(2 * math.pi))

    def _squared(self, value: Tensor) -> Tensor:
        # One pass over memory each way; (x - mean) ** 2 would take four, which dominate the time for images.
        mean, value = torch.broadcast_tensors(self.loc, value)
        return F.mse_loss(mean, value, reduction="none")


def symlog(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return sign(x) log(1 + |x|): compresses large magnitudes on both sides, identity near zero."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(x.abs())


def check_bins(bins: int) -> None:
    """Raise ValueError if a `TwoHot` cannot have this number of bins."""
    if bins < 3 or bins % 2 == 0:
        raise ValueError(f"bins={bins} must be an odd number of at least 3, so that one bin is exactly 0; take 255")


class TwoHot(Distribution):
    """A scalar as a categorical over fixed bins symexp(linspace(-20, 20)); robust to any scale of rewards.

    The training target puts its mass on the two neighbouring bins so that the expectation is exact.

    Args:
        logits: unnormalised log-probabilities; the number of bins must be odd, so that one bin is exactly 0.
        limit: the outermost bins are symexp(-limit) and symexp(limit).

    Raises:
        ValueError: if the number of bins is not odd, or below 3.

    Reference: Hafner et al. 2023, "Mastering Diverse Domains through World Models", section "Robust predictions".
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (the name torch asks for)

    def __init__(self, logits: Float[Tensor, "*batch bin"], limit: float = 20.0) -> None:
        check_bins(logits.shape[-1])
        self.logits = logits  # unnormalised: each method computes the normaliser if it needs it
        half = symexp(torch.linspace(0, limit, logits.shape[-1] // 2 + 1, device=logits.device))
        self.bins = torch.cat([-half[1:].flip(0), half])
        super().__init__(logits.shape[:-1], torch.Size(), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Expectation, summed in symmetric pairs so that uniform probabilities give exactly 0."""
        half = self.logits.shape[-1] // 2
        with torch.autocast(self.logits.device.type, enabled=False):  # the outermost bins need more than bfloat16
            probs = torch.softmax(self.logits.to(self.bins.dtype), dim=-1)
            return (probs[..., half + 1 :] - probs[..., :half].flip(-1)) @ self.bins[half + 1 :]

    def log_prob(self, value: Tensor) -> Tensor:
        """Cross-entropy of the two-hot encoding of `value`, in nats."""
        value = value.detach().clamp(self.bins[0], self.bins[-1]).contiguous()
        above = torch.searchsorted(self.bins, value).clamp(1, len(self.bins) - 1)
        below = above - 1
        weight = (value - self.bins[below]) / (self.bins[above] - self.bins[below])
        gather = self.logits.gather(-1, torch.stack([below, above], dim=-1))
        return (1 - weight) * gather[..., 0] + weight * gather[..., 1] - self.logits.logsumexp(dim=-1)
