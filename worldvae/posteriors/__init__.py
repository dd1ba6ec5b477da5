"""Posteriors q(z | h, e): what is inferred once the frame was seen."""

from worldvae.posteriors.amortised import AmortisedPosterior
from worldvae.posteriors.posterior import Posterior
from worldvae.posteriors.residual import ResidualPosterior

__all__ = ["AmortisedPosterior", "Posterior", "ResidualPosterior"]
