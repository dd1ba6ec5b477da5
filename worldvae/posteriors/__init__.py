"""Posteriors q(z | h, e): the distribution of z given an observation."""

from worldvae.posteriors.amortised import AmortisedPosterior
from worldvae.posteriors.flow import FlowFamily, FlowPosterior
from worldvae.posteriors.frame import FramePosterior
from worldvae.posteriors.hmc import Samples, hmc
from worldvae.posteriors.posterior import Posterior
from worldvae.posteriors.refined import Refined, semi_amortised, svi
from worldvae.posteriors.residual import ResidualPosterior
from worldvae.posteriors.smoothing import Smoother

__all__ = [
    "AmortisedPosterior",
    "FlowFamily",
    "FlowPosterior",
    "FramePosterior",
    "Posterior",
    "Refined",
    "ResidualPosterior",
    "Samples",
    "Smoother",
    "hmc",
    "semi_amortised",
    "svi",
]
