"""Priors p(z | h): conditional distributions that a world model rolls forward."""

from worldvae.priors.prior import Prior

__all__ = ["Prior"]
