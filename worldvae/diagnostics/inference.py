"""Amortised and iterative inference compared: what a single forward pass loses in nats, and saves in time."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.distributions import FullGaussianFamily, GaussianFamily, LatentFamily
from worldvae.memory import LatentState
from worldvae.models.probabilistic import Probabilistic
from worldvae.posteriors import AmortisedPosterior, hmc, semi_amortised, svi
from worldvae.types import Batch, Kind, State

LEAPFROG_STEPS = 10


@dataclass(frozen=True)
class Inference:
    """The result of one method of inferring z, averaged over rows.

    Attributes:
        name: name of the method.
        bound: log p(x | h) >= E_q[log p(x, z | h) - log q(z)] in nats.
        kind: kind of number that the bound is.
        gap: its distance to the importance-weighted estimate of log p(x | h) with the best q of all methods.
        milliseconds: time of the inference per row, on this machine.
        encoder_calls: number of frames encoded per row.
        decoder_calls: number of latents decoded per row.
    """

    name: str
    bound: float
    kind: Kind
    gap: float
    milliseconds: float
    encoder_calls: int
    decoder_calls: int


def compare_inference(
    model: Probabilistic,
    rows: Batch,
    generator: torch.Generator,
    *,
    state: State | None = None,
    action: Float[Tensor, "batch action"] | None = None,
    number: int = 64,
    steps: tuple[int, ...] = (10, 100),
    draws: int = 100,
    samples: int = 256,
) -> list[Inference]:
    """Infer z from single frames x_t given h_t by several methods: in one pass, refined, from scratch, and by HMC.

    The memory comes from filtering and is the same for all; reward and continuation are ignored, because q does not
    read them.

    Args:
        model: the world model, whose posterior must be amortised.
        rows: episodes `[episode, time]` all of whose rows exist.
        generator: source of all draws, on the model's device.
        state: posterior of the row before the first one (default: zero).
        action: action taken in that row (default: zero).
        number: number of rows that are compared, chosen at random.
        steps: gradient steps of the semi-amortised posteriors; inference from scratch takes ten times the largest.
        draws: HMC steps after as many warm-up steps, with 10 leapfrog steps each; several times the length of the
            latent.
        samples: samples of z for every bound.

    Raises:
        ValueError: If the posterior has no parameters that could be refined, or is not Gaussian.

    Reference: Cremer et al. 2018, "Inference Suboptimality in Variational Autoencoders", section 3.
    """
    _check(model)
    model = model.in_float32()
    with torch.no_grad():
        if state is not None and action is not None:
            state, action = state.to(model.device), action.to(model.device)
        observed = model.observe(rows.to(model.device), state, action, generator)
    pick = torch.randperm(rows.reward.numel(), device=model.device, generator=generator)[:number]
    memory = observed.posterior.memory.flatten(0, 1)[pick]
    start = observed.parameters.flatten(0, 1)[pick]
    row = rows.to(model.device).flatten()[pick]
    log_joint = _joint(model, row, memory)
    ways = _ways(model, row, memory, log_joint, start, generator, steps, draws)
    found = []
    for name, way, encoder_calls in ways:
        began = time.perf_counter()
        family, parameters, decoder_calls = way()
        seconds = time.perf_counter() - began
        bound, tight = _bounds(log_joint, family, parameters, samples, generator)
        found.append((name, bound, tight, 1e3 * seconds / len(pick), encoder_calls, decoder_calls))
    best = torch.stack([tight for _, _, tight, *_ in found]).amax(0)
    return [
        Inference(name, float(bound.mean()), "lower_bound", float((best - bound).mean()), ms, encoded, decoded)
        for name, bound, _, ms, encoded, decoded in found
    ]


def _check(model: Probabilistic) -> None:
    posterior = model.posterior
    if not isinstance(posterior, AmortisedPosterior) or model.density_kind != "exact":
        what = f"{type(posterior).__name__} and a log-density of kind {model.density_kind}"
        raise ValueError(f"comparing inference needs an AmortisedPosterior and an exact log-density, not {what}")
    if not isinstance(posterior.family, GaussianFamily | FullGaussianFamily):
        raise ValueError(f"comparing inference starts HMC from a Gaussian, not from {posterior.family!r}")


Joint = Callable[[Float[Tensor, "sample row latent"]], Float[Tensor, "sample row"]]
Way = Callable[[], tuple[LatentFamily, Tensor, int]]


def _joint(model: Probabilistic, row: Batch, memory: Tensor) -> Joint:
    def log_joint(latent: Tensor) -> Tensor:
        states = LatentState(memory.expand(*latent.shape[:-1], -1), latent)
        prior = model.prior.log_prob(latent, states.memory)
        return sum(model.log_likelihood(states, row.observation).values(), start=prior)

    return log_joint


def _ways(
    model: Probabilistic,
    row: Batch,
    memory: Tensor,
    log_joint: Joint,
    start: Tensor,
    generator: torch.Generator,
    steps: tuple[int, ...],
    draws: int,
) -> list[tuple[str, Way, int]]:
    posterior, full = model.posterior, FullGaussianFamily(model.family.latent_size)
    assert isinstance(posterior, AmortisedPosterior)
    family = posterior.family

    @torch.no_grad()
    def amortised() -> tuple[LatentFamily, Tensor, int]:
        projected = posterior.project(model.encode(row.observation))
        return family, posterior.parameters_at(memory, projected), 0

    def refined(number: int) -> Way:
        def way() -> tuple[LatentFamily, Tensor, int]:
            found = semi_amortised(log_joint, family, start, steps=number, generator=generator)
            return family, found.parameters, found.decoder_calls

        return way

    def scratch() -> tuple[LatentFamily, Tensor, int]:
        found = svi(log_joint, family, start, steps=10 * max(steps), generator=generator)
        return family, found.parameters, found.decoder_calls

    def oracle() -> tuple[LatentFamily, Tensor, int]:
        # In q's coordinates the posterior has about the same width in every direction.
        q = family(start)
        mean, std = q.mean, q.stddev
        chains = hmc(
            lambda u: log_joint((mean + std * u).unsqueeze(0)).squeeze(0),
            torch.zeros_like(mean),
            draws,
            LEAPFROG_STEPS,
            draws,
            generator,
        )
        latent = mean + std * chains.draws
        return full, _full_parameters(full, latent), 2 * draws * LEAPFROG_STEPS + 1

    return [
        ("amortised", amortised, 1),
        *((f"semi-amortised, {number} steps", refined(number), 1) for number in steps),
        (f"from scratch, {10 * max(steps)} steps", scratch, 0),
        (f"HMC, {2 * draws} steps; a Gaussian through its draws", oracle, 1),
    ]


def _full_parameters(family: FullGaussianFamily, draws: Float[Tensor, "draw row latent"]) -> Tensor:
    """Return the parameters of the Gaussians with the mean and the covariance of the draws.

    Few draws show correlations that do not exist, which costs nats: all correlations are shrunk, by the share of them
    that chance explains.

    Reference: Schaefer & Strimmer 2005, "A Shrinkage Approach to Large-Scale Covariance Matrix Estimation", section 2.4
    (target D).
    """
    size, number = family.latent_size, len(draws)
    # In double precision: a chain with few accepted draws has correlations of almost 1, and one that rejected all draws
    # has deviations of 0.
    wide = draws.double()
    still = (wide == wide[0]).all(0)
    mean, std = wide.mean(0), wide.std(0).masked_fill(still, 0.0)
    unit = ((wide - mean) / std).masked_fill(still, 0.0)
    correlation = torch.einsum("dri,drj->rij", unit, unit) / (number - 1)
    eye = torch.eye(size).to(correlation)
    chance = ((1 - correlation.square()).square() / (number - 1) * (1 - eye)).sum((1, 2))
    seen = (correlation.square() * (1 - eye)).sum((1, 2))
    share = (1 - chance / seen.clamp(min=1e-9)).clamp(0, 1)[:, None, None]
    correlation = eye + share * correlation * (1 - eye)
    scale = std.unsqueeze(-1) * torch.linalg.cholesky(correlation + 1e-6 * eye)
    row, column = torch.tril_indices(size, size, -1, device=mean.device)
    diagonal = (scale.diagonal(0, -2, -1) - family.min_std).clamp(min=1e-5)
    return torch.cat([mean, 1 + diagonal.expm1().log(), scale[:, row, column]], dim=-1).to(draws)


@torch.no_grad()
def _bounds(
    log_joint: Joint, family: LatentFamily, parameters: Tensor, samples: int, generator: torch.Generator
) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
    """Return the ELBO and the importance-weighted bound, with fresh noise."""
    noise = family.noise((samples, len(parameters)), parameters.device, generator)
    repeated = parameters.expand(samples, *parameters.shape)
    latent = family.sample(repeated, noise)
    weights = torch.cat([log_joint(part) for part in latent.split(16)]) - family(repeated).log_prob(latent)
    return weights.mean(0), weights.logsumexp(0) - torch.tensor(float(samples)).log()
