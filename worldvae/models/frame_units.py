"""The units of a model whose state is the last observations: how they are stored, denoised and shown."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from worldvae.distributions import symlog
from worldvae.types import Observation, ObservationLayout


class FrameUnits(nn.Module):
    """Conversions between the units of one modality; every row is flat, `[*batch, entry]`.

    | | stored | denoised | shown |
    |---|---|---|---|
    | frames | bytes 0..255 | -1..1, minus the mean frame | 0..1 |
    | vectors | standardised (symlog first, if chosen) | the same | the same |

    Args:
        observation: what the environment shows: frames or a vector.
        compressed: whether vectors are modelled in symlog units.

    Attributes:
        centre: mean of the first data: a frame in -1..1, or a vector.
        scale: spread of the entries of vectors; 1 for frames.
        spread: standard deviation, over all entries, of what is denoised.

    Raises:
        ValueError: If the environment shows both, or nothing.
    """

    centre: Tensor
    scale: Tensor
    spread: Tensor

    def __init__(self, observation: ObservationLayout, compressed: bool) -> None:
        super().__init__()
        if (observation.pixels is None) == (observation.vector is None):
            raise ValueError(
                f"the environment shows {observation}, and a model whose state is the last frames predicts frames or "
                "vectors, not both: give env.obs=pixels or env.obs=state"
            )
        self.layout, self.compressed = observation, compressed
        self.shape: tuple[int, ...] = observation.pixels or (observation.vector or 0,)
        entries = torch.Size(self.shape).numel()
        self.register_buffer("centre", torch.zeros(entries))
        self.register_buffer("scale", torch.ones(entries))
        self.register_buffer("spread", torch.ones(()))

    @property
    def pixels(self) -> bool:
        """Whether observations are frames."""
        return self.layout.pixels is not None

    @property
    def entries(self) -> int:
        """Length of a row."""
        return self.centre.numel()

    @torch.no_grad()
    def calibrate(self, observation: Observation) -> None:
        """Measure the units of the first data (any leading shape)."""
        rows = self._plain(observation).reshape(-1, self.entries)
        self.centre.copy_(rows.mean(0))
        if not self.pixels:
            self.scale.copy_(rows.std(0, correction=0).clamp(min=1e-2))
        self.spread.copy_(((rows - self.centre) / self.scale).square().mean().sqrt().clamp(min=1e-2))

    def _plain(self, observation: Observation) -> Float[Tensor, "*batch entry"]:
        """Return frames in -1..1, or vectors in the units that are standardised."""
        if observation.vector is not None and not self.pixels:
            return symlog(observation.vector) if self.compressed else observation.vector
        return self._bytes(observation).float() / 127.5 - 1

    def _bytes(self, observation: Observation) -> Tensor:
        assert observation.pixels is not None
        frames = observation.pixels.flatten(-3)
        return frames if frames.dtype == torch.uint8 else (frames.float().clamp(0, 1) * 255).round().to(torch.uint8)

    def stored(self, observation: Observation) -> Shaped[Tensor, "*batch entry"]:
        """Return observations as they are stored: bytes (float frames in 0..1 are rounded) or standardised vectors."""
        return self._bytes(observation) if self.pixels else (self._plain(observation) - self.centre) / self.scale

    def to_denoised(self, stored: Shaped[Tensor, "*batch entry"]) -> Float[Tensor, "*batch entry"]:
        """Convert stored rows to the units in which they are denoised."""
        return stored.float() / 127.5 - (1 + self.centre) if self.pixels else stored

    def to_stored(self, denoised: Float[Tensor, "*batch entry"]) -> Shaped[Tensor, "*batch entry"]:
        """Convert denoised rows to stored ones: frames are clamped and rounded to bytes, which ends the gradient."""
        if not self.pixels:
            return denoised
        return ((denoised + (1 + self.centre)) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def shown(self, stored: Shaped[Tensor, "*batch entry"]) -> Float[Tensor, "*shape"]:
        """Return frames `[*batch, channel, height, width]` in 0..1, or standardised vectors."""
        return stored.unflatten(-1, self.shape).float() / 255 if self.pixels else stored

    def decoded(self, stored: Shaped[Tensor, "*batch entry"]) -> Float[Tensor, "*shape"]:
        """Return frames in 0..1, or vectors in the units that a `SequentialVAE` decodes (symlog, if chosen)."""
        return self.shown(stored) if self.pixels else stored * self.scale + self.centre

    def empty(self, *batch: int) -> Shaped[Tensor, "*batch entry"]:
        """Return stored rows of the mean observation, for states that have seen nothing."""
        mean = self.to_stored(torch.zeros_like(self.centre))
        return mean.expand(*batch, self.entries)
