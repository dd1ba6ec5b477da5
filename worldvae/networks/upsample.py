"""Convolutions that double the resolution, computed at the low resolution.

Each output of a transposed convolution with stride 2, or of a convolution of a frame enlarged twofold, is a sum over a
few low-resolution pixels; which ones depends only on whether the output's row and column are even or odd. The four
cases are computed as four sets of output channels of one ordinary convolution at the low resolution, and then moved to
their places. The result is the same, and on a CPU it takes a half to a third of the time.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MAX_FRAME_CHANNELS = 4
"""Up to this number of channels an output counts as a frame: moving adjacent pixels together is then faster."""


class _Interleave(torch.autograd.Function):
    """`[n, rows, columns, 2, 2, channels]` to `[n, height, width, channels]`; the axes of size 2 are odd and even.

    Row o of the result is row (o + first) // 2 of set (o + first) % 2. In channels-last memory whole runs of channels
    are moved once; torch's operations for this take two or three passes.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int, first: int) -> Tensor:
        ctx.shape, ctx.first = x.shape, first
        out = x.new_empty(x.shape[0], height, width, x.shape[-1])
        for small, large in _pairs(x, out, first):
            large.copy_(small)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        found = gradients[0].new_zeros(ctx.shape)
        for small, large in _pairs(found, gradients[0], ctx.first):
            small.copy_(large)
        return found, None, None, None


def _pairs(x: Tensor, out: Tensor, first: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield pairs of corresponding parts of the two tensors."""
    for a in range(2):
        for b in range(2):
            (i, p), (j, q) = divmod(a + first, 2), divmod(b + first, 2)
            large = out[:, a::2, b::2]
            yield x[:, i : i + large.shape[1], j : j + large.shape[2], p, q], large


class _Upsampling(nn.Module):
    """A convolution to twice the resolution; `taps` says which low-resolution pixel each weight reads.

    Args:
        channels: channels of the input.
        out: channels of the output.
        taps: `[2, tap, kernel]`: 1 where, in even (0) or odd (1) rows, a weight of the kernel reads a pixel.
        pad: zeros around the input.
        first: first computed row and column that belongs to the output.
        paints: whether the output is everything that is computed, as frames (one channel after another in memory).
    """

    taps: Tensor

    def __init__(
        self, channels: int, out: int, taps: Float[Tensor, "2 tap kernel"], pad: int, first: int, *, paints: bool
    ) -> None:
        super().__init__()
        self.pad, self.first, self.paints = pad, first, paints
        self.register_buffer("taps", taps, persistent=False)
        kernel = taps.shape[-1]
        bound = (channels * kernel**2) ** -0.5
        self.weight = nn.Parameter(torch.empty(out, channels, kernel, kernel).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound))

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        out, channels, kernel, _ = self.weight.shape
        return f"{channels}, {out}, kernel={kernel}"

    def rows(self, size: int) -> int:
        """Return the number of output rows (columns) for `size` input rows (columns)."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out h w"]:
        """Return maps of twice the resolution: in channels-last memory, or as frames with one channel after another."""
        order = "oabcmn" if self.paints else "abocmn"
        with torch.autocast(x.device.type, enabled=False):
            weight = torch.einsum(f"amk,bnl,ockl->{order}", self.taps, self.taps, self.weight).flatten(0, 2)
        height, width = (self.rows(size) for size in x.shape[-2:])
        # oneDNN's gradient of a bias is several times slower if the input is padded by more than one row of zeros.
        rest = max(0, self.pad - 1)
        x = F.pad(x, (rest, rest, rest, rest)) if rest else x
        if self.paints:
            return paint(F.conv2d(x, weight, self.bias.repeat_interleave(4), padding=self.pad - rest), 2)
        sets = F.conv2d(x, weight, self.bias.repeat(4), padding=self.pad - rest).permute(0, 2, 3, 1)
        out: Tensor = _Interleave.apply(sets.unflatten(-1, (2, 2, -1)), height, width, self.first)  # type: ignore[no-untyped-call]
        return out.permute(0, 3, 1, 2)


class TransposedConv(_Upsampling):
    """`nn.ConvTranspose2d(channels, out, kernel, stride=2, padding=padding)`.

    With o + padding = 2 q + r, row o of the output is the sum over m of weight 2 m + r times row q - m of the input.
    The weight is `[out, channels, kernel, kernel]`.
    """

    def __init__(self, channels: int, out: int, kernel: int, padding: int = 0) -> None:
        exact = kernel == 2 * padding + 2  # exactly twice the resolution
        if out <= MAX_FRAME_CHANNELS and exact:
            # Weight k reads the pixel (row + padding - k) / 2 away: nothing is computed only to be cut off.
            reach = (padding + 1) // 2
            taps = torch.zeros(2, 2 * reach + 1, kernel)
            for row in range(2):
                for k in range((row + padding) % 2, kernel, 2):
                    taps[row, reach + (row + padding - k) // 2, k] = 1
            super().__init__(channels, out, taps, reach, 0, paints=True)
        else:
            size = (kernel + 1) // 2
            taps = torch.zeros(2, size, kernel)
            for k in range(kernel):
                taps[k % 2, size - 1 - k // 2, k] = 1
            paints = out <= MAX_FRAME_CHANNELS and padding == 0 and kernel % 2 == 0
            super().__init__(channels, out, taps, size - 1, padding, paints=paints)
        self.kernel, self.padding = kernel, padding

    def rows(self, size: int) -> int:
        """Return the number of output rows (columns) for `size` input rows (columns)."""
        return 2 * (size - 1) + self.kernel - 2 * self.padding


class EnlargedConv(_Upsampling):
    """A convolution with an odd kernel and zero padding of the input enlarged twofold (each pixel repeated 2 x 2)."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        reach = (kernel // 2 + 1) // 2
        taps = torch.zeros(2, 2 * reach + 1, kernel)
        for r in range(2):
            for k in range(kernel):
                taps[r, reach + (r + k - kernel // 2) // 2, k] = 1
        super().__init__(channels, out, taps, reach, 0, paints=out <= MAX_FRAME_CHANNELS)

    def rows(self, size: int) -> int:
        """Return the number of output rows (columns) for `size` input rows (columns)."""
        return 2 * size


class Shuffle(nn.Module):
    """`nn.PixelShuffle(2)` for channels in the order (row, column, channel), in channels-last memory."""

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out h w"]:
        """Return maps of twice the resolution and a quarter of the channels."""
        sets = x.permute(0, 2, 3, 1).unflatten(-1, (2, 2, -1))
        out: Tensor = _Interleave.apply(sets, 2 * x.shape[2], 2 * x.shape[3], 0)  # type: ignore[no-untyped-call]
        return out.permute(0, 3, 1, 2)


_WORDS = {4: torch.int32, 8: torch.int64, 16: torch.complex128}
"""Types by their length in bytes."""


def words_of(x: Tensor, factor: int) -> Tensor:
    """Return a flat view of x whose words are `factor` adjacent numbers each.

    Flat, because for one channel torch calls any strides contiguous, and then cannot view words.
    """
    flat = x.reshape(-1).contiguous()
    return (flat.clone() if flat.storage_offset() % factor else flat).view(_WORDS[factor * x.itemsize])


class _Paint(torch.autograd.Function):
    """`[n, rows, columns, (channel, f, f)]` to `[n, channel, f rows, f columns]`.

    It computes `torch.pixel_shuffle`, but moves f adjacent pixels as one word, in a fraction of the time on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, f: int) -> Tensor:
        n, rows, columns, size = x.shape
        ctx.factor = f
        words = words_of(x, f).view(n, rows, columns, size // f**2, f)
        return words.permute(0, 3, 1, 4, 2).reshape(-1).view(x.dtype).view(n, size // f**2, f * rows, f * columns)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient, f = gradients[0], ctx.factor
        n, channels, height, width = gradient.shape
        words = words_of(gradient, f).view(n, channels, height // f, f, width // f)
        patches = words.permute(0, 2, 4, 1, 3).reshape(-1).view(gradient.dtype)
        return patches.view(n, height // f, width // f, f**2 * channels), None


def paint(x: Float[Tensor, "batch patch rows columns"], factor: int) -> Float[Tensor, "batch channel height width"]:
    """Arrange patches of `factor` x `factor` pixels: `torch.pixel_shuffle`, faster for channels-last maps."""
    maps = x.permute(0, 2, 3, 1)
    if factor * maps.itemsize not in _WORDS or maps.device.type != "cpu":
        return F.pixel_shuffle(x, factor)
    out: Tensor = _Paint.apply(maps, factor)  # type: ignore[no-untyped-call]
    return out
