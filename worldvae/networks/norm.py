"""Layer normalisation with accurate gradients of its weight and bias in bfloat16.

On a CPU torch sums the gradients of weight and bias in the type of the input. A bfloat16 has eight binary digits, so
that a sum of ones stops growing at 256: after 16 thousand rows three quarters of the bias's gradient are lost, after a
million (the pixels of a batch) all of it. Here they are summed in float32, which is also faster for narrow rows.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MAX_ROWS_FOR_TORCH = 64
"""Up to this number of rows, torch's sums are accurate enough."""
PARTIAL_SUMS, MIN_WIDTH = 64, 128
"""Each sum is computed in this many parts, and narrow rows are joined to this width, which a CPU sums faster."""
MIN_WEIGHT, MIN_WEIGHT_PER_BIAS = 1e-2, 1 / 8
"""If a weight is below the first number, or below this share of the bias, x̂ cannot be recovered from y accurately."""


class _Norm(torch.autograd.Function):
    """y = weight x̂ + bias, with x̂ = (x - mean) / sqrt(variance + eps) over the last axis.

    d bias = sum g, and d weight = sum g x̂ = (sum g y - bias sum g) / weight.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        x = x.contiguous()
        y, mean, scale = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, y, mean, scale, weight, bias)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, y, mean, scale, weight, bias = ctx.saved_tensors
        g = gradients[0].contiguous()
        of_x, _, _ = torch.ops.aten.native_layer_norm_backward(
            g, x, weight.shape, mean, scale, weight, bias, (True, False, False)
        )
        g = g.flatten(0, -2)
        of_bias = column_sums(g)
        if bool((weight.abs() < (MIN_WEIGHT_PER_BIAS * bias.abs()).clamp(min=MIN_WEIGHT)).any()):
            normal = (x.float() - mean) * scale
            of_weight = (g.float() * normal.flatten(0, -2)).sum(0)
        else:
            of_weight = (column_sums(g * y.flatten(0, -2)) - bias * of_bias) / weight
        return of_x, of_weight, of_bias, None


def column_sums(x: Float[Tensor, "row column"]) -> Float[Tensor, " column"]:
    """Return the sums over rows in float32, to the precision of x."""
    rows, columns = x.shape
    beside = max(1, MIN_WIDTH // columns)
    if rows % (PARTIAL_SUMS * beside):
        return x.float().sum(0)
    # Within a part torch sums in float32, and rounds the sum of each part.
    return x.view(PARTIAL_SUMS, -1, beside * columns).sum(1).float().sum(0).view(beside, columns).sum(0)


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm` over the last axis whose gradients of weight and bias stay accurate for many bfloat16 rows."""

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch features"]:
        """Normalise the last axis."""
        if (
            torch.is_grad_enabled()
            and self.weight is not None
            and self.bias is not None
            and (self.weight.requires_grad or self.bias.requires_grad)
            and len(self.normalized_shape) == 1
            and x.dtype == torch.bfloat16
            and x.device.type == "cpu"
            and x.numel() > MAX_ROWS_FOR_TORCH * x.shape[-1]
        ):
            out: Tensor = _Norm.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
            return out
        return super().forward(x)


class ChannelNorm(LayerNorm):
    """LayerNorm over the channel axis of an image tensor."""

    def forward(self, x: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch channel height width"]:
        """Normalise each pixel's channels (a view for channels-last tensors)."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
