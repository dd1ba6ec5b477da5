"""Exact results for linear-Gaussian worlds, with which learned models, bounds, filters and planners are compared."""

from worldvae.exact.chain import (
    AffineChain,
    bound,
    filtering_chain,
    locally_optimal_chain,
    marginal_chain,
    observer_means,
    smoothing_chain,
)
from worldvae.exact.control import COST, QuadraticCost, filter_gain, lqg_cost, lqr_cost, lqr_gain, riccati
from worldvae.exact.kalman import Filtered, Smoothed, kalman_filter, kalman_smoother, log_likelihood
from worldvae.exact.world import (
    MILD,
    STIFF,
    WORLDS,
    LinearGaussian,
    named_world,
    random_episodes,
    reference_episodes,
    roll_out,
)

__all__ = [
    "COST",
    "MILD",
    "STIFF",
    "WORLDS",
    "AffineChain",
    "Filtered",
    "LinearGaussian",
    "QuadraticCost",
    "Smoothed",
    "bound",
    "filter_gain",
    "filtering_chain",
    "kalman_filter",
    "kalman_smoother",
    "locally_optimal_chain",
    "log_likelihood",
    "lqg_cost",
    "lqr_cost",
    "lqr_gain",
    "marginal_chain",
    "named_world",
    "observer_means",
    "random_episodes",
    "reference_episodes",
    "riccati",
    "roll_out",
    "smoothing_chain",
]
