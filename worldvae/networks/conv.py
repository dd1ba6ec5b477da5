"""Convolutional trunks for frames of any size.

The first layer reads patches of 4 x 4 pixels (a "patchified stem"), and the last layer of the decoder outputs such
patches. On a CPU a narrow trunk spends its time on element-wise work at full resolution; here only the pixels
themselves have full resolution, and on two cores an update is about five times faster than with a stride-2 stem. Layers
after the stem combine neighbouring patches: a stem over 3 x 3 patches took 70 of the 288 ms of a float32 update.
"""

import math

import torch
from einops import rearrange
from jaxtyping import Float, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from worldvae.networks.norm import ChannelNorm
from worldvae.networks.upsample import Shuffle, paint, words_of

PATCH = 4


def _grid(shape: tuple[int, int, int], stages: int) -> tuple[int, int]:
    """Size of the coarsest feature map, for frames padded to a multiple of its cell."""
    cell = PATCH * 2**stages
    return math.ceil(shape[1] / cell), math.ceil(shape[2] / cell)


class ConvEncoder(nn.Module):
    """Map frames to vectors: patch stem, then `stages` stride-2 convolutions that double the channels.

    Args:
        shape: (channel, height, width) of a frame; frames are padded to a multiple of the coarsest map's cell.
        depth: channels after the stem.
        stages: number of stride-2 convolutions.

    Attributes:
        centre: frame that is subtracted from every input; 0.5 until `Senses.calibrate` sets it to the mean frame.
    """

    centre: Tensor

    def __init__(self, shape: tuple[int, int, int], depth: int, stages: int = 2) -> None:
        super().__init__()
        self.shape, self.stages = shape, stages
        rows, columns = _grid(shape, stages)
        cell = PATCH * 2**stages
        self.pad = (0, columns * cell - shape[2], 0, rows * cell - shape[1])
        layers: list[nn.Module] = [
            nn.Conv2d(shape[0] * PATCH**2, depth, 1),
            ChannelNorm(depth, eps=1e-3),
            nn.SiLU(),
        ]
        for i in range(stages):
            width = depth * 2 ** (i + 1)
            layers += [nn.Conv2d(width // 2, width, 4, stride=2, padding=1), ChannelNorm(width, eps=1e-3), nn.SiLU()]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("centre", torch.full(shape, 0.5))
        self.out_features = depth * 2**stages * rows * columns

    def forward(
        self, x: UInt8[Tensor, "*batch channel height width"] | Float[Tensor, "*batch channel height width"]
    ) -> Float[Tensor, "*batch embedding"]:
        """Encode frames (uint8 0..255 or float 0..1) into flat feature vectors."""
        batch = x.shape[:-3]
        # Cut into patches while a pixel is one byte, and write them in the channels-last order that convolutions
        # prefer.
        patches = self._patches(x.reshape(-1, *self.shape))
        dtype = compute_dtype(patches.device)
        centre = self._patches(self.centre.unsqueeze(0)).to(dtype)
        # (In place: the conversion from bytes has made a new tensor.)
        patches = patches.to(dtype).div_(255).sub_(centre) if x.dtype == torch.uint8 else patches.to(dtype) - centre
        out: Tensor = self.layers(patches)
        return out.reshape(*batch, self.out_features)

    def _patches(self, x: Shaped[Tensor, "batch channel height width"]) -> Shaped[Tensor, "batch patch rows columns"]:
        padded = F.pad(x, self.pad) if any(self.pad) else x  # (padding by 0 would copy)
        if padded.dtype != torch.uint8:
            return rearrange(padded, "n c (h p) (w q) -> n h w (c p q)", p=PATCH, q=PATCH).permute(0, 3, 1, 2)
        # Four adjacent bytes stay adjacent: moving them as one integer takes a third of the time.
        words = words_of(padded, PATCH).view(*padded.shape[:-1], padded.shape[-1] // PATCH)
        moved = rearrange(words, "n c (h p) w -> n h w (c p)", p=PATCH).contiguous()
        return moved.view(torch.uint8).permute(0, 3, 1, 2)


def compute_dtype(device: torch.device) -> torch.dtype:
    """Return the type that convolutions compute in, so that pixels are converted once and not again by autocast."""
    enabled = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if enabled else torch.get_default_dtype()


class ConvDecoder(nn.Module):
    """Map vectors to frames: the mirror image of `ConvEncoder`, upsampling by pixel shuffles.

    A stride-1 convolution followed by a pixel shuffle computes what a stride-2 transposed convolution does, faster on a
    CPU and without checkerboard artefacts.

    A patch is a linear map of `depth` channels: if patches hold more independent detail than that, frames come out
    blurred and need a larger `depth`.

    Args:
        features: length of the input vector.
        shape: (channel, height, width) of a frame.
        depth: channels of the finest hidden map.
        stages: number of upsamplings by 2 before the last layer outputs patches.
    """

    def __init__(self, features: int, shape: tuple[int, int, int], depth: int, stages: int = 2) -> None:
        super().__init__()
        self.shape = shape
        self.grid = _grid(shape, stages)
        self.width = width = depth * 2**stages
        self.stem = nn.Linear(features, width * self.grid[0] * self.grid[1])
        layers: list[nn.Module] = [ChannelNorm(width, eps=1e-3), nn.SiLU()]
        for i in reversed(range(stages)):
            half = depth * 2**i
            layers += [
                nn.Conv2d(2 * half, 4 * half, 3, padding=1),
                Shuffle(),
                ChannelNorm(half, eps=1e-3),
                nn.SiLU(),
            ]
        layers += [
            nn.Conv2d(depth, depth, 3, padding=1),
            ChannelNorm(depth, eps=1e-3),
            nn.SiLU(),
            nn.Conv2d(depth, shape[0] * PATCH**2, 1),
        ]
        # The initial output is zero. The fastest way to improve a random one is to make frames independent of the
        # latent, and the encoder would collapse before the decoder has learned to use it.
        nn.init.zeros_(layers[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(layers[-1].bias)  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch channel height width"]:
        """Return frames minus the mean frame."""
        batch = x.shape[:-1]
        maps = self.stem(x).reshape(-1, *self.grid, self.width).permute(0, 3, 1, 2)
        out = paint(self.layers(maps), PATCH)[..., : self.shape[1], : self.shape[2]]
        return out.reshape(*batch, *self.shape)
