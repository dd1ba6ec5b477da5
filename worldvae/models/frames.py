"""The words of `model.frames` and `model.trunk`: the likelihood p(x | h, z) of frames and its convolutions."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from worldvae.likelihoods import (
    NOISE_FLOOR,
    BernoulliImageLikelihood,
    DiffusionLikelihood,
    DiscretisedLogisticLikelihood,
    GaussianLikelihood,
    HeteroscedasticLikelihood,
)
from worldvae.networks import TRUNKS, ConvDecoder, ConvEncoder, Denoiser, StridedDecoder, StridedEncoder

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class FrameSizes:
    """The sizes that a likelihood of frames is built from.

    Attributes:
        pixels: (channel, height, width).
        features: length of the feature vector that the decoder reads.
        depth: channels of the widest feature maps.
        sigma: standard deviation of frames in 0..1, or its initial value if it is learned.
        learned: whether sigma is learned.
    """

    pixels: Shape
    features: int
    depth: int
    sigma: float
    learned: bool


@dataclass(frozen=True)
class FrameLikelihood:
    """The likelihood that a word of `model.frames` selects.

    Attributes:
        make: builds p(x | h, z) on a trunk.
        painted: channels that the trunk outputs per channel of a frame.
    """

    make: Callable[[nn.Module, FrameSizes], nn.Module]
    painted: int = 1


def _gaussian(trunk: nn.Module, sizes: FrameSizes) -> GaussianLikelihood:
    learned = "shared" if sizes.learned else None
    return GaussianLikelihood(trunk, sizes.pixels, sigma=sizes.sigma, learned=learned, offset=0.5)


def _heteroscedastic(trunk: nn.Module, sizes: FrameSizes) -> HeteroscedasticLikelihood:
    return HeteroscedasticLikelihood(trunk, sizes.pixels, sigma=sizes.sigma)


def _logistic(trunk: nn.Module, sizes: FrameSizes) -> DiscretisedLogisticLikelihood:
    return DiscretisedLogisticLikelihood(trunk, sizes.pixels, scale=sizes.sigma * math.sqrt(3) / math.pi)


def _bernoulli(trunk: nn.Module, sizes: FrameSizes) -> BernoulliImageLikelihood:
    return BernoulliImageLikelihood(trunk, sizes.pixels)


def _diffusion(trunk: nn.Module, sizes: FrameSizes) -> DiffusionLikelihood:
    if sizes.sigma <= NOISE_FLOOR:
        least = f"pixel_sigma={sizes.sigma} must be above {NOISE_FLOOR}"
        raise ValueError(f"{least} with frames=diffusion: that much noise remains in every frame")
    denoiser = Denoiser(sizes.features, sizes.pixels, max(32, 2 * sizes.depth))
    learned = "shared" if sizes.learned else None
    # The denoiser trains on a quarter of the decoded frames: training on all of them doubles the time of an update.
    return DiffusionLikelihood(trunk, denoiser, sizes.pixels, sigma=sizes.sigma, learned=learned, share=0.25)


FRAMES: dict[str, FrameLikelihood] = {
    "gaussian": FrameLikelihood(_gaussian),
    "heteroscedastic": FrameLikelihood(_heteroscedastic, painted=2),  # a location and a scale
    "logistic": FrameLikelihood(_logistic, painted=2),
    "bernoulli": FrameLikelihood(_bernoulli),
    "diffusion": FrameLikelihood(_diffusion),
}


def frames_of(word: str, trunk: str, sizes: FrameSizes) -> tuple[ConvEncoder | StridedEncoder, nn.Module]:
    """Return the encoder from frames to embeddings, and p(x | h, z), for a word of `model.frames` and a `trunk`."""
    likelihood, (channels, height, width) = FRAMES[word], sizes.pixels
    painted = (channels * likelihood.painted, height, width)
    encoder: ConvEncoder | StridedEncoder
    decoder: ConvDecoder | StridedDecoder
    if trunk == "patch":
        encoder, decoder = ConvEncoder(sizes.pixels, sizes.depth), ConvDecoder(sizes.features, painted, sizes.depth)
    else:
        shape = TRUNKS[trunk]
        encoder = StridedEncoder(sizes.pixels, sizes.depth, shape)
        decoder = StridedDecoder(sizes.features, painted, sizes.depth, shape)
    return encoder, likelihood.make(decoder, sizes)
