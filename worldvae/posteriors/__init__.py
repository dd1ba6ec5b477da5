"""Posteriors q(z | h, e): what is inferred once the frame was seen."""

from worldvae.posteriors.amortised import AmortisedPosterior

__all__ = ["AmortisedPosterior"]
