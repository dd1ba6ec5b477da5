"""The convolutional trunks of the literature: kernels of 4, stride 2 (PlaNet, Dreamer), or max-pooling (DreamerV3)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from worldvae.networks.conv import compute_dtype
from worldvae.networks.norm import ChannelNorm
from worldvae.networks.upsample import EnlargedConv, TransposedConv


@dataclass(frozen=True)
class Trunk:
    """A pair of encoder and decoder.

    Attributes:
        multipliers: channels of the encoder's stages, in units of `depth`.
        kernel: kernel size of the encoder.
        decoder_kernels: kernel sizes of the decoder's stages, coarsest first.
        pooled: stride 1 and 2 x 2 max-pooling instead of stride 2; enlarged maps instead of transposed convolutions.
        padding: padding of the strided kernels.
        normalised: channel norms and SiLU, else ReLU alone.
    """

    multipliers: tuple[int, ...]
    kernel: int
    decoder_kernels: tuple[int, ...]
    pooled: bool = False
    padding: int = 0
    normalised: bool = True

    @property
    def halves(self) -> bool:
        """Whether each stage halves the resolution exactly, rounded up: then frames may have any size."""
        return self.pooled or self.padding > 0


TRUNKS = {
    "planet": Trunk((1, 2, 4, 8), 4, (5, 5, 6, 6), normalised=False),
    "strided": Trunk((1, 2, 4, 8), 4, (4, 4, 4, 4), padding=1),
    "pooled": Trunk((2, 3, 4, 4), 5, (5, 5, 5, 5), pooled=True),
}
"""`planet`: Hafner et al. 2019, appendix A. `strided`: the same with norms and padding, as in DreamerV3's first code.
`pooled`: Hafner et al. 2025, "Mastering diverse control tasks through world models", its published code."""


def _activation(trunk: Trunk, channels: int) -> list[nn.Module]:
    return [ChannelNorm(channels, eps=1e-3), nn.SiLU()] if trunk.normalised else [nn.ReLU()]


class MaxPool(nn.Module):
    """Maximum of 2 x 2 pixels (tied pixels share the gradient)."""

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel h w"]:
        """Halve height and width."""
        # max_pool2d stores an index of eight bytes per pixel, which takes longer than the maximum itself.
        rows = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
        return torch.maximum(rows[..., 0::2], rows[..., 1::2])


class StridedEncoder(nn.Module):
    """Map frames to vectors by the stages of a `Trunk`, each of which halves the resolution.

    Args:
        shape: (channel, height, width) of a frame; padded to a multiple of 2^stages if the trunk pads.
        depth: unit of the numbers of channels.
        trunk: the stages.

    Attributes:
        centre: frame that is subtracted from every input; 0.5 until `Senses.calibrate` sets it to the mean frame.
    """

    centre: Tensor

    def __init__(self, shape: tuple[int, int, int], depth: int, trunk: Trunk) -> None:
        super().__init__()
        self.shape, self.trunk = shape, trunk
        channels = shape[0]
        layers: list[nn.Module] = []
        for multiplier in trunk.multipliers:
            width = depth * multiplier
            if trunk.pooled:
                layers += [nn.Conv2d(channels, width, trunk.kernel, padding=trunk.kernel // 2), MaxPool()]
            else:
                layers += [nn.Conv2d(channels, width, trunk.kernel, stride=2, padding=trunk.padding)]
            layers += _activation(trunk, width)
            channels = width
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.grid = grid(shape, trunk)
        (rows, columns), cell = self.grid, 2 ** len(trunk.multipliers)
        self.pad = (0, columns * cell - shape[2], 0, rows * cell - shape[1]) if trunk.halves else (0, 0, 0, 0)
        self.register_buffer("centre", torch.full(shape, 0.5))
        self.out_features = channels * self.grid[0] * self.grid[1]

    def forward(
        self, x: UInt8[Tensor, "*batch channel height width"] | Float[Tensor, "*batch channel height width"]
    ) -> Float[Tensor, "*batch embedding"]:
        """Encode frames (uint8 0..255 or float 0..1) into flat feature vectors."""
        batch = x.shape[:-3]
        frames = x.reshape(-1, *self.shape)
        dtype = compute_dtype(frames.device)
        centre = self.centre.to(dtype)
        # (In place: the conversion from bytes has made a new tensor.)
        shifted = frames.to(dtype).div_(255).sub_(centre) if x.dtype == torch.uint8 else frames.to(dtype) - centre
        padded = F.pad(shifted, self.pad) if any(self.pad) else shifted  # (padding by 0 would copy)
        maps = padded.contiguous(memory_format=torch.channels_last)
        out: Tensor = self.layers(maps)
        return out.permute(0, 2, 3, 1).reshape(*batch, self.out_features)


def grid(shape: tuple[int, int, int], trunk: Trunk) -> tuple[int, int]:
    """Return the numbers of rows and columns of the coarsest map."""
    sizes = []
    for size in shape[1:]:
        for _ in trunk.multipliers:
            size = math.ceil(size / 2) if trunk.halves else (size - trunk.kernel) // 2 + 1
        sizes.append(size)
    return sizes[0], sizes[1]


class StridedDecoder(nn.Module):
    """Map vectors to frames by the mirror image of a `StridedEncoder`.

    Args:
        features: length of the input vector.
        shape: (channel, height, width) of a frame.
        depth: unit of the numbers of channels.
        trunk: the stages.

    Raises:
        ValueError: If the trunk cannot output frames of this size.
    """

    def __init__(self, features: int, shape: tuple[int, int, int], depth: int, trunk: Trunk) -> None:
        super().__init__()
        self.shape, self.trunk = shape, trunk
        widths = [depth * m for m in reversed(trunk.multipliers[:-1])]
        kernels = list(trunk.decoder_kernels)
        if trunk.halves:
            self.grid, self.width = grid(shape, trunk), depth * trunk.multipliers[-1]
        else:
            # The first transposed convolution enlarges a single pixel: it is a linear map of its channels to the first
            # map of `kernel` rows and columns.
            self.grid, self.width = (kernels[0], kernels[0]), widths.pop(0)
            kernels.pop(0)
            embedding = depth * trunk.multipliers[-1] * 4
            self.first = nn.Linear(features, embedding)
            features = embedding
        self.stem = nn.Linear(features, self.width * self.grid[0] * self.grid[1])
        layers: list[nn.Module] = _activation(trunk, self.width)
        width, size = self.width, self.grid[0]
        for i, kernel in enumerate(kernels):
            out = widths[i] if i < len(widths) else shape[0]
            up = EnlargedConv(width, out, kernel) if trunk.pooled else TransposedConv(width, out, kernel, trunk.padding)
            layers += [up, *(_activation(trunk, out) if i < len(widths) else [])]
            width, size = out, 2 * size if trunk.halves else 2 * (size - 1) + kernel
        if not trunk.halves and shape[1:] != (size, size):
            raise ValueError(f"trunk=planet is for frames of {size} x {size} only, not {shape[1]} x {shape[2]}")
        last = layers[-1]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]  # the initial output is zero: see ConvDecoder
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch channel height width"]:
        """Return frames minus the mean frame."""
        batch = x.shape[:-1]
        if hasattr(self, "first"):
            x = self.first(x)
        maps = self.stem(x).reshape(-1, *self.grid, self.width).permute(0, 3, 1, 2)
        out: Tensor = self.layers(maps)[..., : self.shape[1], : self.shape[2]]
        return out.reshape(*batch, *self.shape)
