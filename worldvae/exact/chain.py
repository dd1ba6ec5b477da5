"""Sequential posteriors of a linear-Gaussian world, and their ELBOs in closed form.

The ELBO of any chain of affine Gaussians can be computed exactly. If a family of chains may not read everything that
the exact posterior reads, its best chain stays below the log-likelihood: this difference is the *conditioning gap* of
the family, and no network and no training can close it.

Reference: Bayer et al. 2021, "Mind the Gap when Conditioning Amortised Inference in Sequential Latent-Variable Models".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor
from torch.distributions import MultivariateNormal

from worldvae.exact.kalman import kalman_smoother, update
from worldvae.exact.world import LinearGaussian


@dataclass(frozen=True, eq=False)
class AffineChain:
    """q(z_t | z_{t-1}, x, u) = N(F_t z_{t-1} + b_t, S_t); b_t depends on x and u. F is 0 in the first row.

    Attributes:
        F: factor on the previous state.
        b: the part that depends on the data.
        S: covariance, which depends on neither the state nor the data.
    """

    F: Float64[Tensor, "time latent latent"]
    b: Float64[Tensor, "batch time latent"]
    S: Float64[Tensor, "time latent latent"]


def bound(
    world: LinearGaussian,
    q: AffineChain,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
) -> Float64[Tensor, "batch time"]:
    """Return the terms E_q[log p(x_t | z_t) + log p(z_t | z_{t-1}) - log q(z_t | z_{t-1})] in nats (lower_bound).

    With the marginals N(m_t, P_t) of q, d_t = m_t - A m_{t-1} - B u_{t-1} and
    D_t = (F_t - A) P_{t-1} (F_t - A)' + S_t:

        log N(x_t; C m_t, R) - tr(R^-1 C P_t C') / 2 + log N(d_t; 0, Q) - tr(Q^-1 D_t) / 2 + log|2 pi e S_t| / 2
    """
    drift = world.drift(actions)
    mean, covariance = torch.zeros_like(drift[:, 0]), torch.zeros_like(world.P0)
    means, covariances = [mean], [covariance]
    for t in range(observations.shape[1]):
        mean = mean @ q.F[t].mT + q.b[:, t]
        covariance = q.F[t] @ covariance @ q.F[t].mT + q.S[t]
        means.append(mean)
        covariances.append(covariance)
    m, p = torch.stack(means, dim=1), torch.stack(covariances)
    steps = torch.stack([world.step_covariance(t) for t in range(observations.shape[1])])
    change = q.F - world.A
    spread = change @ p[:-1] @ change.mT + q.S
    seen: Tensor = MultivariateNormal(m[:, 1:] @ world.C.mT, world.R, validate_args=False).log_prob(observations)
    moved: Tensor = MultivariateNormal(m[:, :-1] @ world.A.mT + drift, steps, validate_args=False).log_prob(m[:, 1:])
    lost: Tensor = _trace(world.R, world.C @ p[1:] @ world.C.mT) + _trace(steps, spread)
    entropy: Tensor = len(world.m0) * math.log(2 * math.pi * math.e) + torch.logdet(q.S)
    return seen + moved + (entropy - lost) / 2


def _trace(metric: Tensor, matrix: Tensor) -> Tensor:
    """Return tr(metric^-1 matrix)."""
    out: Tensor = torch.linalg.solve(metric, matrix).diagonal(dim1=-2, dim2=-1).sum(-1)
    return out


def smoothing_chain(
    world: LinearGaussian,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
) -> AffineChain:
    """Return the exact posterior, q(z_t | z_{t-1}, x_{t:T}), whose ELBO is the log-likelihood.

    Backwards, p(x_{t:T} | z_t) is proportional to exp(-z' L_t z / 2 + z' n_t) with, from L = n = 0 after the end,

        L_t = C' R^-1 C + A' V A,                    V = (I + L_{t+1} Q)^-1 L_{t+1},
        n_t = C' R^-1 x_t + A' (v - V B u_t),        v = (I + L_{t+1} Q)^-1 n_{t+1},

    and q = N((I + Q L_t)^-1 (A z_{t-1} + B u_{t-1} + Q n_t), (I + Q L_t)^-1 Q). Q is never inverted.
    """
    drift = world.drift(actions)
    eye = torch.eye(len(world.m0), dtype=drift.dtype, device=drift.device)
    precision = torch.linalg.solve(world.R, world.C).mT  # C' R^-1
    information, score = torch.zeros_like(world.A), torch.zeros_like(drift[:, 0])
    transfers, offsets, covariances = [], [], []
    for t in reversed(range(observations.shape[1])):
        information = precision @ world.C + world.A.mT @ information @ world.A
        score = observations[:, t] @ precision.mT + score @ world.A
        step = world.step_covariance(t)
        reduce = torch.linalg.inv(eye + step @ information)
        transfers.append(reduce @ world.A if t else torch.zeros_like(world.A))
        offsets.append((drift[:, t] + score @ step) @ reduce.mT)
        covariances.append(_symmetric(reduce @ step))
        # What row t and all later rows say about A z_{t-1}, given the effect of the action.
        information = _symmetric(information @ reduce)
        score = score @ reduce - drift[:, t] @ information
    return AffineChain(torch.stack(transfers[::-1]), torch.stack(offsets[::-1], dim=1), torch.stack(covariances[::-1]))


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def locally_optimal_chain(
    world: LinearGaussian,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
) -> AffineChain:
    """Return p(z_t | z_{t-1}, x_t): the proposal of least weight variance, and the best filter without memory.

    With K = Q C' (C Q C' + R)^-1: N(p + K (x_t - C p), (I - K C) Q), p = A z_{t-1} + B u_{t-1}.

    Reference: Doucet et al. 2000, "On sequential Monte Carlo sampling methods for Bayesian filtering", proposition 2.
    """
    length = observations.shape[1]
    (first, _, narrow), (gain, _, covariance) = update(world, world.P0), update(world, world.Q)
    gains = torch.stack([first] + [gain] * (length - 1))
    return filtering_chain(world, observations, actions, gains, torch.stack([narrow] + [covariance] * (length - 1)))


def filtering_chain(
    world: LinearGaussian,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
    gains: Float64[Tensor, "time latent observation"],
    covariances: Float64[Tensor, "time latent latent"],
    memory: Float64[Tensor, "batch time latent"] | None = None,
    trust: Float64[Tensor, "time latent latent"] | None = None,
) -> AffineChain:
    """Return a filter with given gains, q = N(p + K_t (x_t - C p) + M_t (h_t - p), S_t), p = A z_{t-1} + B u_{t-1}.

    Args:
        world: the world, whose dynamics the filter knows.
        observations: x.
        actions: u.
        gains: K_t.
        covariances: S_t.
        memory: h_t, a function of x_{1:t} (for example `observer_means`); None: the filter is q(z_t | z_{t-1}, x_t).
        trust: M_t, the weight of the memory.
    """
    keep = torch.eye(len(world.m0), dtype=gains.dtype, device=gains.device) - gains @ world.C
    offset = torch.einsum("tij,btj->bti", gains, observations)
    if memory is not None and trust is not None:
        keep = keep - trust
        offset = offset + torch.einsum("tij,btj->bti", trust, memory)
    offset = offset + torch.einsum("tij,btj->bti", keep, world.drift(actions))
    transfer = torch.cat([torch.zeros_like(world.A)[None], keep[1:] @ world.A])
    return AffineChain(transfer, offset, covariances)


def observer_means(
    world: LinearGaussian,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
    gains: Float64[Tensor, "time latent observation"],
) -> Float64[Tensor, "batch time latent"]:
    """Return a deterministic memory of all frames so far: an observer with gains G_t.

    h_t = p + G_t (x_t - C p),    p = A h_{t-1} + B u_{t-1}.
    """
    drift = world.drift(actions)
    memory = torch.zeros_like(drift[:, 0])
    out = []
    for t in range(observations.shape[1]):
        predicted = memory @ world.A.mT + drift[:, t]
        memory = predicted + (observations[:, t] - predicted @ world.C.mT) @ gains[t].mT
        out.append(memory)
    return torch.stack(out, dim=1)


def marginal_chain(
    world: LinearGaussian,
    observations: Float64[Tensor, "batch time observation"],
    actions: Float64[Tensor, "batch time action"],
) -> AffineChain:
    """Return the product of the exact marginals p(z_t | x_{1:T}): right in every row, but without their dependence."""
    known = kalman_smoother(world, observations, actions)
    return AffineChain(torch.zeros_like(known.covariance), known.mean, known.covariance)
