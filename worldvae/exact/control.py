"""Optimal control of a linear-Gaussian world: linear feedback on the mean of the Kalman filter.

Reference: Åström 1970, "Introduction to Stochastic Control Theory", chapter 8; for the doubling algorithm, Chu et al.
2004, "A structure-preserving doubling algorithm for periodic discrete-time algebraic Riccati equations".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from worldvae.exact.kalman import update
from worldvae.exact.world import LinearGaussian

DOUBLINGS = 30  # number of doublings of the horizon: 2^30 steps


@dataclass(frozen=True, eq=False)
class QuadraticCost:
    """The cost z' W z + u' U u of a step.

    Attributes:
        state: W.
        action: U.
    """

    state: Float64[Tensor, "latent latent"]
    action: Float64[Tensor, "action action"]

    def of(
        self, states: Float64[Tensor, "*batch latent"], actions: Float64[Tensor, "*batch action"]
    ) -> Float64[Tensor, "*batch"]:
        """Return the cost of states and of the actions that led to them."""
        paid: Tensor = ((states @ self.state) * states).sum(-1) + ((actions @ self.action) * actions).sum(-1)
        return paid


COST = QuadraticCost(
    torch.diag(torch.tensor([1.0, 0.1], dtype=torch.float64)), torch.tensor([[0.01]], dtype=torch.float64)
)
"""The cost of a step in the built-in linear-Gaussian worlds."""


def riccati(
    A: Float64[Tensor, "n n"],
    B: Float64[Tensor, "n m"],
    W: Float64[Tensor, "n n"],
    U: Float64[Tensor, "m m"],
) -> Float64[Tensor, "n n"]:
    """Return the stabilising P = W + A' P A - A' P B (U + B' P B)^-1 B' P A, by doubling the horizon.

    Raises:
        ValueError: If P does not converge: (A, B) cannot be stabilised, or W leaves unstable directions without cost.
    """
    eye = torch.eye(len(A), dtype=A.dtype, device=A.device)
    a, g, h = A, B @ torch.linalg.solve(U, B.mT), W
    for _ in range(DOUBLINGS):
        reduced = torch.linalg.solve(eye + g @ h, torch.cat([a, g], dim=1))
        ra, rg = reduced[:, : len(A)], reduced[:, len(A) :]
        following = h + a.mT @ h @ ra
        a, g, change = a @ ra, g + a @ rg @ a.mT, following - h
        h = (following + following.mT) / 2
        if bool(h.isfinite().all()) and float(change.abs().max()) <= 1e-15 * float(h.abs().max()):
            settled: Tensor = h
            return settled
    raise ValueError("the Riccati equation has no stabilising solution: (A, B) must be stabilisable, (A, W) detectable")


def lqr_gain(world: LinearGaussian, cost: QuadraticCost = COST) -> Float64[Tensor, "action latent"]:
    """Return L of the optimal feedback u = -L z (on E[z | x_{1:t}] if z is not observed).

    L = (U + B' P B)^-1 B' P A.
    """
    p = riccati(world.A, world.B, cost.state, cost.action)
    gain: Tensor = torch.linalg.solve(cost.action + world.B.mT @ p @ world.B, world.B.mT @ p @ world.A)
    return gain


def filter_gain(
    world: LinearGaussian,
) -> tuple[Float64[Tensor, "latent observation"], Float64[Tensor, "latent latent"], Float64[Tensor, "latent latent"]]:
    """Return the stationary gain, predicted covariance and filtered covariance of the Kalman filter."""
    predicted = riccati(world.A.mT, world.C.mT, world.Q, world.R)
    gain, _, filtered = update(world, predicted)
    return gain, predicted, filtered


def lqr_cost(world: LinearGaussian, cost: QuadraticCost = COST) -> Float64[Tensor, ""]:
    """Return the least average cost of a step if the state is observed: tr(P Q)."""
    return (riccati(world.A, world.B, cost.state, cost.action) @ world.Q).trace()


def lqg_cost(world: LinearGaussian, cost: QuadraticCost = COST) -> Float64[Tensor, ""]:
    """Return the least average cost of a step if only x_{1:t} is observed: tr(P Q) + tr(S L' (U + B' P B) L).

    S is the filtered covariance: the action at x_t may use x_t. The second term is the price of not observing the
    state.
    """
    p, gain = riccati(world.A, world.B, cost.state, cost.action), lqr_gain(world, cost)
    _, _, filtered = filter_gain(world)
    return lqr_cost(world, cost) + (filtered @ gain.mT @ (cost.action + world.B.mT @ p @ world.B) @ gain).trace()
