"""Posteriors q(z | h, e): what is inferred once the frame was seen."""

from worldvae.posteriors.amortised import AmortisedPosterior
from worldvae.posteriors.posterior import Posterior
from worldvae.posteriors.residual import ResidualPosterior
from worldvae.posteriors.smoothing import Smoother

__all__ = ["AmortisedPosterior", "Posterior", "ResidualPosterior", "Smoother"]
