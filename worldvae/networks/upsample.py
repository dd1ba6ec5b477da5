"""Convolutions that double the resolution, computed where it is still low.

Transposed convolutions with stride 2, and convolutions of a frame enlarged twofold, are sums over few low-resolution
pixels, which ones depending only on whether the output's row and column are even or odd. All four cases are four sets
of output channels of one ordinary convolution at the low resolution; what follows is moving pixels into place. The
result is the same, and on a CPU it takes a half to a third of the time.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MAX_FRAME_CHANNELS = 4
"""Channels up to which a map is a frame: runs of so few are moved faster as pixels that lie side by side."""


class _Interleave(torch.autograd.Function):
    """`[n, rows, columns, 2, 2, channels]` to `[n, height, width, channels]`, the two axes of 2 being odd and even.

    Row o of the result is row (o + first) // 2 of the set (o + first) % 2. In channels-last memory whole runs of
    channels are moved, once; the operations that torch has for this take two or three passes.
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
    """Yield the parts of the two tensors that belong together."""
    for a in range(2):
        for b in range(2):
            (i, p), (j, q) = divmod(a + first, 2), divmod(b + first, 2)
            large = out[:, a::2, b::2]
            yield x[:, i : i + large.shape[1], j : j + large.shape[2], p, q], large


class _Upsampling(nn.Module):
    """A convolution to twice the resolution, by the rule `taps` of which low-resolution pixel each weight sees.

    Args:
        channels: of the input.
        out: channels of the output.
        taps: `[2, tap, kernel]`, 1 where, in even (0) or odd (1) rows, a weight of the kernel falls on a pixel.
        pad: zeros around the input.
        first: row and column at which the output begins, among those that can be computed.
        paints: whether all that is computed comes out, as frames (channel by channel).
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
        """Show the shape."""
        out, channels, kernel, _ = self.weight.shape
        return f"{channels}, {out}, kernel={kernel}"

    def rows(self, size: int) -> int:
        """Return how many rows (columns) come out of `size`."""
        raise NotImplementedError

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch out h w"]:
        """Return maps of twice the resolution: in channels-last memory, or frames channel by channel."""
        order = "oabcmn" if self.paints else "abocmn"
        with torch.autocast(x.device.type, enabled=False):
            weight = torch.einsum(f"amk,bnl,ockl->{order}", self.taps, self.taps, self.weight).flatten(0, 2)
        height, width = (self.rows(size) for size in x.shape[-2:])
        # oneDNN's gradient of a bias takes several times as long where more than one row of zeros is around the input.
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
        exact = kernel == 2 * padding + 2  # twice the resolution, neither more nor less
        if out <= MAX_FRAME_CHANNELS and exact:
            # Weight k falls on the pixel (row + padding - k) / 2 away: nothing is computed that is cut off later.
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
        """Return how many rows (columns) come out of `size`."""
        return 2 * (size - 1) + self.kernel - 2 * self.padding


class EnlargedConv(_Upsampling):
    """A convolution with an odd kernel, zeros around it, of the input enlarged twofold (each pixel repeated 2 x 2)."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        reach = (kernel // 2 + 1) // 2
        taps = torch.zeros(2, 2 * reach + 1, kernel)
        for r in range(2):
            for k in range(kernel):
                taps[r, reach + (r + k - kernel // 2) // 2, k] = 1
        super().__init__(channels, out, taps, reach, 0, paints=out <= MAX_FRAME_CHANNELS)

    def rows(self, size: int) -> int:
        """Return how many rows (columns) come out of `size`."""
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
    """See the numbers of x `factor` at a time.

    Through one axis: of one channel, torch takes any strides for contiguous, and then cannot see words in them.
    """
    flat = x.reshape(-1).contiguous()
    return (flat.clone() if flat.storage_offset() % factor else flat).view(_WORDS[factor * x.itemsize])


class _Paint(torch.autograd.Function):
    """`[n, rows, columns, (channel, f, f)]` to `[n, channel, f rows, f columns]`.

    It is `torch.pixel_shuffle`, moving the f pixels that lie side by side as one word: on a CPU in a fraction of the
    time.
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
    """Lay out patches of `factor` x `factor` pixels: `torch.pixel_shuffle`, faster for channels-last maps."""
    maps = x.permute(0, 2, 3, 1)
    if factor * maps.itemsize not in _WORDS or maps.device.type != "cpu":
        return F.pixel_shuffle(x, factor)
    out: Tensor = _Paint.apply(maps, factor)  # type: ignore[no-untyped-call]
    return out
