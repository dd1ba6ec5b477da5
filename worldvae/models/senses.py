"""Encoders and decoders of a world model: the only module that knows frames, vectors and their units."""

from collections.abc import Iterable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.distributions import symlog
from worldvae.likelihoods import BernoulliImageLikelihood, GaussianLikelihood, Rendering
from worldvae.models.parts import WorldModelConfig, autocast, make_frames, make_vector
from worldvae.networks import ConvEncoder, StridedEncoder
from worldvae.types import Modality, Observation, ObservationLayout


class Senses(nn.Module):
    """Encoders and decoders of observations, and the units in which each of them works.

    | | comes as | encoded in | decoded in | shown in |
    |---|---|---|---|---|
    | frames | uint8 0..255, or float 0..1 | the same | float 0..1 (`unit`) | float 0..1 |
    | vectors | the environment's units | standardised | symlog of it (`squash`) | standardised |

    A vector is standardised with the mean and the spread of the data passed to `calibrate`.

    Args:
        observation: what the environment shows.
        features: length of the feature vector that the decoders read.
        config: the parts and their sizes.
        stack: frames that are encoded together, stacked on channels; one is decoded.
        decodes: whether there are decoders (that of vectors is kept, untrained, for its units).

    Attributes:
        embedding_size: length of the embedding that `encode` returns.
    """

    def __init__(
        self,
        observation: ObservationLayout,
        features: int,
        config: WorldModelConfig,
        *,
        stack: int = 1,
        decodes: bool = True,
    ) -> None:
        super().__init__()
        self.stack, self.decodes = stack, decodes
        self.layout, self.config = observation, config
        self.encoders, self.decoders = nn.ModuleDict(), nn.ModuleDict()
        self.embedding_size = 0
        # Frames first: the weights that a seed gives depend on the order in which the parts are built.
        if observation.pixels is not None:
            encoder, decoder = make_frames(config, observation.pixels, features)
            if stack > 1:
                channels, height, width = observation.pixels
                encoder, _ = make_frames(config, (stack * channels, height, width), features)
            self.encoders["pixels"] = encoder
            if decodes:
                self.decoders["pixels"] = decoder
            self.embedding_size += encoder.out_features
        if observation.vector is not None:
            self.encoders["vector"], self.decoders["vector"] = make_vector(config, observation.vector, features)
            self.embedding_size += config.resolve("hidden")

    @property
    def shows(self) -> frozenset[Modality]:
        """The modalities that `decode` accepts."""
        return frozenset(cast(Iterable[Modality], self.decoders if self.decodes else ()))

    def likelihood(self, modality: Modality) -> GaussianLikelihood:
        """Return the likelihood module that `decode` calls for "pixels" or "vector"."""
        return cast(GaussianLikelihood, self.decoders[modality])  # a ModuleDict does not know the types of its entries

    @torch.no_grad()
    def calibrate(self, observation: Observation) -> None:
        """Initialise the decoders to predict the mean frame and vector of `observation` (any leading shape).

        Also set the units of vectors by their mean and spread. Call it once, on an untrained model.
        """
        if observation.pixels is not None:
            mean = unit(observation.pixels).reshape(-1, *observation.pixels.shape[-3:]).mean(0)
            if self.decodes and not isinstance(self.decoders["pixels"], BernoulliImageLikelihood):  # that has no offset
                cast(Tensor, self.decoders["pixels"].offset).copy_(mean)
            cast(ConvEncoder | StridedEncoder, self.encoders["pixels"]).centre.copy_(mean.repeat(self.stack, 1, 1))
        if observation.vector is not None:
            rows = self.squash(observation.vector).reshape(-1, observation.vector.shape[-1])
            vector = self.likelihood("vector")
            vector.offset.copy_(rows.mean(0))
            vector.scale.copy_(rows.std(0, correction=0).clamp(min=1e-2))

    def squash(self, vector: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return observed vectors in the units that are decoded: symlog if `config.vector_symlog`, else unchanged."""
        return symlog(vector) if self.config.vector_symlog else vector

    def standardise(self, squashed: Float[Tensor, "*batch vector"]) -> Float[Tensor, "*batch vector"]:
        """Convert vectors from the units that are decoded to the standardised units that are encoded and shown."""
        vector = self.likelihood("vector")
        return (squashed - vector.offset) / vector.scale

    def encode(self, observation: Observation) -> Float[Tensor, "*batch embedding"]:
        """Encode frames (stacks of them, if `stack` is above 1) and vectors into one embedding."""
        parts = []
        if observation.pixels is not None:
            with autocast(self.config, self.layout.pixels, observation.pixels.device):
                parts.append(self.encoders["pixels"](observation.pixels).float())
        if observation.vector is not None:
            parts.append(self.encoders["vector"](self.standardise(self.squash(observation.vector))))
        return torch.cat(parts, dim=-1)

    def decode(self, features: Float[Tensor, "*batch features"], modality: Modality | None = None) -> Distribution:
        """Return p(x | features); `.mean` is `[*batch, channel, height, width]` in 0..1 for frames.

        Args:
            features: any leading shape.
            modality: "pixels" or "vector" (in the units of `squash`); default: pixels if the environment shows them.
        """
        if modality is None:
            modality = "pixels" if "pixels" in self.decoders else "vector"
        if modality == "pixels":
            with autocast(self.config, self.layout.pixels, features.device):
                return self.decoders["pixels"](features)  # type: ignore[no-any-return]
        return self.decoders["vector"](features)  # type: ignore[no-any-return]

    def log_prob(
        self, features: Float[Tensor, "*batch features"], observation: Observation
    ) -> dict[Modality, Float[Tensor, "*batch"]]:
        """Return log p(x | features) in nats, summed over event axes, of each modality that was observed.

        Args:
            features: any leading shape.
            observation: of the same leading shape, or of one that broadcasts to it.
        """
        found: dict[Modality, Tensor] = {}
        if observation.pixels is not None:
            found["pixels"] = self.decode(features, "pixels").log_prob(unit(observation.pixels))
        if observation.vector is not None:
            found["vector"] = self.decode(features, "vector").log_prob(self.squash(observation.vector))
        return found

    def in_shown_units(
        self, features: Float[Tensor, "*batch features"], observation: Observation
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return the observation and what features decode to: both are frames in 0..1, or standardised vectors.

        Args:
            features: `[*batch]`.
            observation: `[*batch]`, too; vectors are returned only if there are no frames.
        """
        if observation.pixels is not None:
            return unit(observation.pixels), self.decode(features, "pixels").mean.float().clamp(0, 1)
        assert observation.vector is not None
        both = self.squash(observation.vector), self.decode(features, "vector").mean
        seen, decoded = (self.standardise(x).float() for x in both)
        return seen, decoded

    @torch.no_grad()
    def render(
        self, features: Float[Tensor, "batch *time features"], steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *time channel height width"]:
        """Return the sharpest frames that p(x | features) can give: rendered by a diffusion decoder, else its mean.

        Args:
            features: `[batch, *time]`. All time steps of one element start from the same noise, so that details do not
                flicker.
            steps: denoising steps from noise to a frame.
            generator: source of the noise, one noise frame per element of the batch.
        """
        found = self.decode(features, "pixels")
        if not isinstance(found, Rendering):
            return found.mean
        shape = (*found.batch_shape[:1], *[1] * (len(found.batch_shape) - 1), *found.event_shape)
        noise = torch.randn(shape, device=features.device, generator=generator)
        return found.render(noise.expand_as(found.mean), steps)


def unit(pixels: Tensor) -> Float[Tensor, "*batch channel height width"]:
    """Return frames as float in 0..1, from uint8 0..255 or from float in 0..1."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels
