"""VAEs of handwritten digits that differ only in their prior."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.distributions import GaussianFamily
from worldvae.errors import UserError, near_miss
from worldvae.likelihoods import DiscretisedLogisticLikelihood
from worldvae.models.static_vae import VAE
from worldvae.networks import MLP
from worldvae.posteriors import Posterior, ResidualPosterior
from worldvae.priors import (
    FlowMatchingPrior,
    FlowPrior,
    HierarchicalPrior,
    MixturePrior,
    ParametricPrior,
    Prior,
    StandardPrior,
    VampPrior,
)

LEVELS = 17
"""Number of grey levels of a pixel, 0..16: how many of its 4 x 4 dots are black."""

SHAPE = (8, 8)
LATENT, HIDDEN, LAYERS = 8, 128, 2
COMPONENTS = 50


@dataclass(frozen=True)
class Digits:
    """The 1797 digits of scikit-learn in three parts, with grey levels k / 16."""

    train: Float[Tensor, "train 8 8"]
    validation: Float[Tensor, "validation 8 8"]
    test: Float[Tensor, "test 8 8"]


def load_digits() -> Digits:
    """Return 1300 training digits, 200 validation digits, and the last 297, which are held out.

    The first 1500 are split at random, identically for all seeds of a comparison.

    Raises:
        UserError: If scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits as load  # an optional dependency
    except ModuleNotFoundError as error:
        raise UserError("the digits come with scikit-learn: pip install 'worldvae[digits]'.") from error
    x = torch.tensor(load().data, dtype=torch.float32).view(-1, *SHAPE) / (LEVELS - 1)
    order = torch.randperm(1500, generator=torch.Generator().manual_seed(0))
    return Digits(x[order[:1300]], x[order[1300:]], x[1500:])


Parts = tuple[Prior, Posterior]


def _same(make: Callable[[], Prior], vae: VAE, x: Tensor) -> Parts:
    return make(), vae.posterior


def _gaussian(vae: VAE, x: Tensor) -> Parts:
    family = GaussianFamily(LATENT)
    prior = ParametricPrior(0, family, HIDDEN, layers=0)
    with torch.no_grad():  # start as N(0, I), to gain nothing by the start: 2 sigmoid(raw / 2 - 2.2) + min_std = 1
        share = (1 - family.min_std) / 2
        cast(MLP, prior.net)[-1].get_parameter("bias")[LATENT:] = 2 * (math.log(share / (1 - share)) + 2.2)
    return prior, vae.posterior


def _vamp(vae: VAE, x: Tensor) -> Parts:
    prior = VampPrior(vae.posterior, 0, HIDDEN, HIDDEN, COMPONENTS)
    with torch.no_grad():  # the pseudo-inputs start from data (Tomczak & Welling 2018, section 5.1)
        prior.pseudo.copy_(vae.encoder(x[torch.randperm(len(x))[:COMPONENTS]]))
    return prior, vae.posterior


def _hierarchical(vae: VAE, x: Tensor) -> Parts:
    prior = HierarchicalPrior(0, LATENT, HIDDEN, 2)
    return prior, ResidualPosterior(prior, 0, HIDDEN, HIDDEN)


PRIORS: dict[str, Callable[[VAE, Tensor], Parts]] = {
    "standard": partial(_same, partial(StandardPrior, LATENT)),
    "gaussian": _gaussian,
    "mixture": partial(_same, partial(MixturePrior, 0, LATENT, HIDDEN, COMPONENTS)),
    "vamp": _vamp,
    "flow": partial(_same, partial(FlowPrior, 0, LATENT, 64, 3)),
    "hierarchical": _hierarchical,
    "flow_matching": partial(_same, partial(FlowMatchingPrior, 0, LATENT, HIDDEN)),
}
"""Functions from a VAE with N(0, I), and its training digits, to another prior and the posterior that fits it."""


def check_names(names: Sequence[str]) -> None:
    """Raise UserError unless every name is one of `PRIORS`."""
    for name in names:
        if name not in PRIORS:
            accepted = ", ".join(PRIORS)
            raise UserError(f"{name!r} is not a prior of this study: take {accepted}.{near_miss(name, PRIORS)}")


def make_vae(name: str, seed: int, x: Float[Tensor, "train 8 8"]) -> VAE:
    """Return an untrained VAE with the prior of that name.

    It has two perceptrons, z of length 8, and a discretised logistic p(x | z) on the 17 grey levels: probabilities, not
    densities, so that nats have the same meaning for all. For one seed all priors get an encoder and a decoder with the
    same weights, and the same posterior, except that a hierarchical prior has a posterior that works level by level.
    """
    likelihood = partial(DiscretisedLogisticLikelihood, levels=LEVELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = VAE.dense(SHAPE, LATENT, HIDDEN, LAYERS, likelihood=likelihood, outputs=2)
        prior, posterior = PRIORS[name](vae, x)
    return VAE(vae.encoder, posterior, prior, vae.likelihood)
