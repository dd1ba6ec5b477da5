"""The Kalman filter, the Rauch-Tung-Striebel smoother, and the exact log-likelihood.

Reference: Särkkä 2013, "Bayesian Filtering and Smoothing", sections 4.3 and 8.2.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import MultivariateNormal

from worldvae.exact.world import LinearGaussian


@dataclass(frozen=True, eq=False)
class Filtered:
    """The results of the Kalman filter in each row; covariances do not depend on the data and have no batch axis.

    Attributes:
        predicted_mean: mean of p(z_t | x_{1:t-1}).
        predicted_covariance: its covariance.
        mean: mean of p(z_t | x_{1:t}).
        covariance: its covariance.
        log_likelihood: log p(x_t | x_{1:t-1}) in nats (kind: exact).
    """

    predicted_mean: Float64[Tensor, "batch time latent"]
    predicted_covariance: Float64[Tensor, "time latent latent"]
    mean: Float64[Tensor, "batch time latent"]
    covariance: Float64[Tensor, "time latent latent"]
    log_likelihood: Float64[Tensor, "batch time"]


@dataclass(frozen=True, eq=False)
class Smoothed:
    """The marginals p(z_t | x_{1:T})."""

    mean: Float64[Tensor, "batch time latent"]
    covariance: Float64[Tensor, "time latent latent"]


def update(
    world: LinearGaussian, covariance: Float64[Tensor, "latent latent"]
) -> tuple[
    Float64[Tensor, "latent observation"],
    Float64[Tensor, "observation observation"],
    Float64[Tensor, "latent latent"],
]:
    """Return the gain K, the covariance of x, and the covariance of z given x, for z with the given covariance.

    S = C P C' + R,    K = P C' S^-1,    P' = (I - K C) P (I - K C)' + K R K'  (Joseph's form, which stays symmetric)
    """
    seen = world.C @ covariance @ world.C.mT + world.R
    gain = torch.linalg.solve(seen, world.C @ covariance).mT
    rest = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device) - gain @ world.C
    return gain, seen, rest @ covariance @ rest.mT + gain @ world.R @ gain.mT


def kalman_filter(
    world: LinearGaussian,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
) -> Filtered:
    """Return p(z_t | x_{1:t-1}), p(z_t | x_{1:t}) and log p(x_t | x_{1:t-1}) for every row."""
    drift = world.drift(actions)
    mean = torch.zeros_like(drift[:, 0])
    covariance = torch.zeros_like(world.P0)
    means, covariances, predictions, spreads, expected, shapes = [], [], [], [], [], []
    for t in range(observations.shape[1]):
        mean = mean @ world.A.mT + drift[:, t]
        covariance = world.A @ covariance @ world.A.mT + world.step_covariance(t)
        predictions.append(mean)
        spreads.append(covariance)
        gain, seen, covariance = update(world, covariance)
        expected.append(mean @ world.C.mT)
        shapes.append(seen)
        mean = mean + (observations[:, t] - expected[-1]) @ gain.mT
        means.append(mean)
        covariances.append(covariance)
    surprise = MultivariateNormal(torch.stack(expected, dim=1), torch.stack(shapes), validate_args=False)
    return Filtered(
        torch.stack(predictions, dim=1),
        torch.stack(spreads),
        torch.stack(means, dim=1),
        torch.stack(covariances),
        surprise.log_prob(observations),
    )


def log_likelihood(
    world: LinearGaussian,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
) -> Float64[Tensor, " batch"]:
    """Return log p(x_{1:T} | u_{1:T}) in nats, the sum of log p(x_t | x_{1:t-1}) over t (kind: exact)."""
    return kalman_filter(world, observations, actions).log_likelihood.sum(dim=1)


def kalman_smoother(
    world: LinearGaussian,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
) -> Smoothed:
    """Return p(z_t | x_{1:T}) for every row.

    With G_t = P_t A' P_{t+1|t}^-1, backwards from the last filtered row:
    m_t^s = m_t + G_t (m_{t+1}^s - m_{t+1|t}),    P_t^s = P_t + G_t (P_{t+1}^s - P_{t+1|t}) G_t'.
    """
    known = kalman_filter(world, observations, actions)
    mean, covariance = known.mean[:, -1], known.covariance[-1]
    means, covariances = [mean], [covariance]
    for t in reversed(range(observations.shape[1] - 1)):
        predicted = known.predicted_covariance[t + 1]
        gain = torch.linalg.solve(predicted, world.A @ known.covariance[t]).mT
        mean = known.mean[:, t] + (mean - known.predicted_mean[:, t + 1]) @ gain.mT
        covariance = known.covariance[t] + gain @ (covariance - predicted) @ gain.mT
        means.append(mean)
        covariances.append(covariance)
    return Smoothed(torch.stack(means[::-1], dim=1), torch.stack(covariances[::-1]))
