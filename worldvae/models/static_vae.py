"""The static VAE: the parts of the world model without memory and without time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from worldvae.distributions import GaussianFamily, LatentFamily
from worldvae.errors import Diverged
from worldvae.likelihoods import GaussianLikelihood
from worldvae.models.interpolation import geodesic, lerp, slerp
from worldvae.networks import MLP, by_lr_scale
from worldvae.posteriors import AmortisedPosterior, Posterior, ResidualPosterior
from worldvae.priors import Prior, StandardPrior, VampPrior
from worldvae.types import Kind, weakest


@dataclass(frozen=True)
class Bound:
    """log p(x) or a bound on it, in nats per example, and what kind of number it is."""

    nats: Float[Tensor, " batch"]
    kind: Kind


@dataclass(frozen=True)
class History:
    """The history of `VAE.fit`: nats per example, averaged over the batch of each update."""

    reconstruction: Float[Tensor, " update"]
    kl: Float[Tensor, " update"]

    @property
    def bound(self) -> Float[Tensor, " update"]:
        """The ELBO."""
        return self.reconstruction - self.kl


class VAE(nn.Module):
    """q(z | x) = posterior(encoder(x)), p(z) = prior, p(x | z) = likelihood(z).

    The prior and the posterior are those of a world model, conditioned on a memory of length 0. Every prior and
    posterior of a world model therefore fits here, and vice versa.

    Args:
        encoder: maps a batch of x to embeddings.
        posterior: q(z | embedding), built for memory length 0.
        prior: p(z), built for memory length 0.
        likelihood: maps z to the distribution of x.

    Example:
        >>> vae = VAE.dense((8, 8), latent=4)
        >>> history = vae.fit(digits, epochs=20, generator=torch.Generator().manual_seed(0))
        >>> frames = vae.sample(16, torch.Generator().manual_seed(1))

    Reference: Kingma & Welling 2014, "Auto-Encoding Variational Bayes".
    """

    def __init__(self, encoder: nn.Module, posterior: Posterior, prior: Prior, likelihood: nn.Module) -> None:
        super().__init__()
        if posterior.latent_size != prior.latent_size:
            sizes = f"posterior has latents of length {posterior.latent_size}, its prior of length {prior.latent_size}"
            raise ValueError(f"VAE: the {sizes}; they must be the same")
        if isinstance(prior, VampPrior) and prior.posterior is not posterior:
            raise ValueError("VAE: the VampPrior was built with another posterior; give the VAE that posterior")
        if isinstance(posterior, ResidualPosterior) and posterior.prior is not prior:
            raise ValueError("VAE: the ResidualPosterior was built with another prior; give the VAE that prior")
        self.encoder, self.posterior, self.prior, self.likelihood = encoder, posterior, prior, likelihood

    @classmethod
    def dense(
        cls,
        shape: tuple[int, ...],
        latent: int,
        hidden: int = 128,
        layers: int = 2,
        *,
        family: LatentFamily | None = None,
        prior: Prior | None = None,
        likelihood: Callable[[nn.Module, tuple[int, ...]], nn.Module] | None = None,
        outputs: int = 1,
    ) -> "VAE":
        """Return a VAE of perceptrons; with `layers=0` a linear one, which is probabilistic PCA.

        Args:
            shape: shape of one x.
            latent: length of z.
            hidden: width of the hidden layers.
            layers: number of hidden layers of the encoder, and of the decoder.
            family: family of q; None: a diagonal Gaussian.
            prior: p(z); None: N(0, I).
            likelihood: builds p(x | z) from a trunk and `shape`; None: a Gaussian with one learned sigma.
            outputs: numbers that `likelihood` needs per entry of x: 2 for a discretised logistic.
        """
        size = torch.Size(shape).numel()
        family = family or GaussianFamily(latent, min_std=1e-3)
        if latent < 1 or family.latent_size != latent:
            raise ValueError(f"VAE.dense: latent={latent}, but the family has latents of length {family.latent_size}")
        trunk = nn.Sequential(
            MLP(latent, hidden, layers, outputs * size), nn.Unflatten(-1, (outputs * shape[0], *shape[1:]))
        )
        encoder = MLP(size, hidden, layers)
        return cls(
            nn.Sequential(nn.Flatten(), encoder),
            AmortisedPosterior(0, encoder.out_features, family, hidden, layers=0),
            prior or StandardPrior(family.latent_size),
            likelihood(trunk, shape)
            if likelihood
            else GaussianLikelihood(trunk, shape, sigma=0.5, learned="shared", floor=1e-3),
        )

    def encode(self, x: Float[Tensor, "batch *event"]) -> Distribution:
        """Return q(z | x)."""
        return self.posterior.distribution(self.parameters_of(x)[1])

    def decode(self, latent: Float[Tensor, "*batch latent"]) -> Distribution:
        """Return p(x | z), for z of any leading shape."""
        out: Distribution = self.likelihood(latent)
        return out

    def parameters_of(
        self, x: Float[Tensor, "batch *event"]
    ) -> tuple[Float[Tensor, "batch latent"], Float[Tensor, "batch parameter"]]:
        """Return the mode of q(z | x) and the parameters of q."""
        projected = self.posterior.project(self.encoder(x))
        return self.posterior.infer(_memory(projected), projected, None)

    def log_joint(
        self, x: Float[Tensor, "batch *event"], latent: Float[Tensor, "*sample batch latent"]
    ) -> Float[Tensor, "*sample batch"]:
        """Return log p(x, z) of each example, for one or several z each: the target of HMC and refined posteriors."""
        likelihood: Tensor = self.decode(latent).log_prob(x)
        return likelihood + self.prior.log_prob(latent, _memory(latent))

    def log_weights(
        self, x: Float[Tensor, "batch *event"], noise: Float[Tensor, "sample batch noise"]
    ) -> Float[Tensor, "sample batch"]:
        """Return log p(x, z) - log q(z | x) at the z made from `noise`: estimates of log p(x), too low on average."""
        if isinstance(self.posterior, ResidualPosterior):  # its parameters depend on the sample
            projected = self.posterior.project(self.encoder(x))
            repeated = projected.expand(len(noise), *projected.shape)
            latent, parameters = self.posterior.infer(_memory(repeated), repeated, noise)
            return self.log_joint(x, latent) - self.posterior.distribution(parameters).log_prob(latent)
        parameters = self.parameters_of(x)[1]
        latent, log_q = self.posterior.sample_and_log_prob(parameters.expand(len(noise), *parameters.shape), noise)
        return self.log_joint(x, latent) - log_q

    def bound(
        self, x: Float[Tensor, "batch *event"], samples: int = 1, generator: torch.Generator | None = None
    ) -> Bound:
        """Return the importance-weighted bound log 1/k sum_k p(x, z_k) / q(z_k | x), which is the ELBO for k = 1.

        It rises to log p(x) as the number k of `samples` grows. On average over the noise it is a lower bound, unless
        the prior's log-density is only an estimate, or known only up to a constant: its kind says so. If the
        log-density of the prior or of x is a noisy draw of a lower bound, the ELBO is one, too; but for k > 1 the
        result is an estimate, because the mean of exponentials is dominated by draws that are too high.

        Reference: Burda et al. 2016, "Importance Weighted Autoencoders".
        """
        if samples < 1:
            raise ValueError(f"samples={samples}: the bound needs at least 1")
        noise = self.posterior.noise((samples, len(x)), x.device, generator).to(x.dtype)
        weights = self.log_weights(x, noise)
        kind = weakest("lower_bound", self.prior.kind)
        noisy = "lower_bound" in (self.prior.kind, getattr(self.likelihood, "kind", "exact"))
        if kind == "lower_bound" and noisy and samples > 1:
            kind = "estimate"
        return Bound(weights.logsumexp(0) - torch.tensor(float(samples)).log().to(weights), kind)

    def fit(
        self,
        data: Float[Tensor, "example *event"],
        *,
        epochs: int | None = None,
        updates: int | None = None,
        batch: int = 128,
        learning_rate: float = 2e-3,
        final: float = 0.0,
        beta: float = 1.0,
        clip: float = 1000.0,
        generator: torch.Generator,
        watch: Callable[[int], object] | None = None,
    ) -> History:
        """Maximise E_q[log p(x | z)] - beta KL(q || p) by Adam, with one z for each example.

        Args:
            data: examples.
            epochs: passes through the data; give either this or `updates`.
            updates: optimiser steps.
            batch: examples per update; all of them if there are fewer.
            learning_rate: initial step size; it falls linearly.
            final: final step size as a share of the initial one.
            beta: weight of the KL; only 1 gives a bound on log p(x).
            clip: largest norm of the gradient, which is in nats per example.
            generator: source of the order of the examples, and of noise.
            watch: called after every update with the number of updates so far, for example to evaluate the model.

        Raises:
            ValueError: If not exactly one of `epochs` and `updates` is given, or it is not positive.
            Diverged: If a gradient is not finite.

        Reference: Kingma & Welling 2014, algorithm 1; Higgins et al. 2017, "beta-VAE".
        """
        batch = min(batch, len(data))
        if batch < 1:
            raise ValueError(f"fit: {len(data)} examples in batches of {batch}: take at least 1 of both")
        if (epochs is None) == (updates is None):
            raise ValueError(f"fit: give either epochs or updates, not epochs={epochs}, updates={updates}")
        total = updates if updates is not None else (epochs or 0) * -(-len(data) // batch)
        if total < 1:
            raise ValueError(f"fit: epochs={epochs}, updates={updates} is too few; take at least 1")
        parameters = list(self.parameters())
        groups = by_lr_scale(parameters)
        parts = [{"params": group, "lr": scale * learning_rate} for scale, group in groups.items()]
        adam = torch.optim.Adam(parts)
        decay = torch.optim.lr_scheduler.LinearLR(adam, 1.0, final, total)
        seen: list[Tensor] = []
        for x in _batches(data, batch, total, generator):
            reconstruction, kl = self._terms(x, generator)
            adam.zero_grad()
            torch.autograd.backward((beta * kl - reconstruction).mean(), inputs=parameters)
            _check_finite(nn.utils.clip_grad_norm_(parameters, clip), len(seen), learning_rate)
            adam.step()
            decay.step()
            seen.append(torch.stack([reconstruction.mean(), kl.mean()]).detach())
            if watch is not None:
                watch(len(seen))
        return History(*torch.stack(seen, dim=1))

    def _terms(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        projected = self.posterior.project(self.encoder(x))
        noise = self.posterior.noise((len(x),), x.device, generator).to(x.dtype)
        latent, parameters = self.posterior.infer(_memory(projected), projected, noise)
        kl = self.prior.kl(self.posterior.distribution(parameters), latent, _memory(projected))
        return self.decode(latent).log_prob(x), kl

    @torch.no_grad()
    def sample(self, number: int, generator: torch.Generator) -> Float[Tensor, "number *event"]:
        """Return the means of p(x | z) for `number` draws of z from the prior."""
        like = next(self.parameters())
        noise = self.prior.noise((number,), like.device, generator).to(like.dtype)
        return self.decode(self.prior.step(_memory(noise), noise)).mean

    @torch.no_grad()
    def reconstruct(self, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch *event"]:
        """Return the mean of p(x | z) at the mode of q(z | x)."""
        return self.decode(self.parameters_of(x)[0]).mean

    @torch.no_grad()
    def interpolate(
        self,
        a: Float[Tensor, "batch *event"],
        b: Float[Tensor, "other *event"],
        steps: int = 8,
        how: Literal["lerp", "slerp", "geodesic"] = "lerp",
    ) -> Float[Tensor, "step batch *event"]:
        """Return examples between a and b, decoded from a curve between the modes of their posteriors.

        Args:
            a: first examples; their reconstructions are the first step.
            b: last examples.
            steps: number of points of the curve, both ends included.
            how: a straight line, an arc of a sphere, or the shortest curve as measured by the decoder's outputs.

        Raises:
            ValueError: If a and b have different numbers of examples, or no curve has this name.

        Reference: White 2016 ("slerp"); Arvanitidis et al. 2018 ("geodesic"): see `worldvae.models.interpolation`.
        """
        if len(a) != len(b):
            raise ValueError(f"{len(a)} examples a and {len(b)} examples b: give the same number of both")
        ends = self.parameters_of(a)[0], self.parameters_of(b)[0]
        if how == "geodesic":
            return self.decode(geodesic(self.surface, *ends, steps)).mean
        if how not in ("lerp", "slerp"):
            raise ValueError(f"how={how!r} is not a curve: take 'lerp', 'slerp' or 'geodesic'")
        return self.decode((lerp if how == "lerp" else slerp)(*ends, steps)).mean

    def surface(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "..."]:
        """Return the decoder outputs that define lengths in latent space: mean of p(x | z), and deviation if z sets it.

        Reference: Arvanitidis et al. 2018, section 3.1: the expected metric is J_mean' J_mean + J_std' J_std.
        """
        x = self.decode(latent)
        if isinstance(x, Independent) and isinstance(x.base_dist, Normal):
            return torch.cat([x.mean, x.stddev], dim=latent.dim() - 1)
        return x.mean

    @torch.no_grad()
    def traverse(
        self, x: Float[Tensor, "batch *event"], dim: int, values: Float[Tensor, " value"]
    ) -> Float[Tensor, "value batch *event"]:
        """Return the reconstructions of x with one entry of the latent replaced by each of `values`."""
        mode = self.parameters_of(x)[0]
        if not 0 <= dim < mode.shape[-1]:
            raise ValueError(f"dim={dim} is out of range for a latent of length {mode.shape[-1]}")
        latent = mode.repeat(len(values), 1, 1)
        latent[..., dim] = values.to(mode).unsqueeze(-1)
        return self.decode(latent).mean


def _memory(like: Tensor) -> Float[Tensor, "*batch memory"]:
    """Return memories of length 0, because a static VAE has no memory."""
    return like.new_zeros(*like.shape[:-1], 0)


def _batches(data: Tensor, batch: int, updates: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches in passes through the data, each in a new random order; a pass may end with a smaller batch."""
    done = 0
    while True:
        order = torch.randperm(len(data), generator=generator, device=generator.device)
        for part in order.split(batch) if batch < len(data) else (None,):
            yield data if part is None else data[part.to(data.device)]
            done += 1
            if done == updates:
                return


def _check_finite(norm: Tensor, update: int, learning_rate: float) -> None:
    """Raise `Diverged` if the gradient's norm is not finite, because the step would make weights infinite or NaN."""
    if not bool(norm.isfinite()):
        raise Diverged(
            f"fit: the gradient of update {update} is not finite, and the weights were left as they are: take a "
            f"smaller learning_rate (it is {learning_rate:g}), or data that are all finite."
        )
