"""A small convolutional network that separates noise from detail, in patches of 4 x 4 pixels."""

import math

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldvae.networks.conv import PATCH, compute_dtype
from worldvae.networks.mlp import MLP
from worldvae.networks.norm import ChannelNorm
from worldvae.networks.upsample import paint

HARMONICS = 4


class ModulatedBlock(nn.Module):
    """x + conv(SiLU(norm(conv(SiLU((1 + scale) norm(x) + shift))))), with one scale and one shift per channel.

    Reference: Perez et al. 2018, "FiLM"; Dhariwal & Nichol 2021, "Diffusion Models Beat GANs", section 3.1.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width, eps=1e-3, elementwise_affine=False)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.rest = nn.Sequential(ChannelNorm(width, eps=1e-3), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(
        self,
        x: Float[Tensor, "batch channel height width"],
        scale: Float[Tensor, "batch channel"],
        shift: Float[Tensor, "batch channel"],
    ) -> Float[Tensor, "batch channel height width"]:
        """Return the sum of x and the block's output."""
        normed = torch.addcmul(shift[..., None, None], 1 + scale[..., None, None], self.norm(x))
        out: Tensor = x + self.rest(self.first(F.silu(normed)))
        return out


class Denoiser(nn.Module):
    """v(z, a | frame, features): the velocity at which the frame z = cos(a) u + sin(a) e turns into noise.

        v = cot(a) g(z, a) z + n(z, a)

    The network outputs g and n, which have the shape of z. cot(a) z is the velocity for u = 0: if z is nothing but
    noise, the network therefore need not pass the noise of every pixel through its few channels. An untrained network
    outputs zeros.

    Args:
        features: length of the conditioning vector.
        shape: (channel, height, width) of a frame; frames are padded to whole patches.
        width: channels of the feature maps, which have one pixel per patch.
        blocks: number of residual blocks.

    Reference: Salimans & Ho 2022, "Progressive Distillation", appendix D (v).
    """

    def __init__(self, features: int, shape: tuple[int, int, int], width: int, blocks: int = 2) -> None:
        super().__init__()
        self.shape, self.width = shape, width
        rows, columns = (math.ceil(size / PATCH) for size in shape[1:])
        self.pad = (0, columns * PATCH - shape[2], 0, rows * PATCH - shape[1])
        patch = shape[0] * PATCH**2
        self.condition = MLP(features + 2 * HARMONICS + 1, 2 * width, 1, 2 * blocks * width)
        self.stem = nn.Conv2d(2 * patch, width, 3, padding=1)
        self.blocks = nn.ModuleList(ModulatedBlock(width) for _ in range(blocks))
        self.last = nn.Sequential(ChannelNorm(width, eps=1e-3), nn.SiLU(), nn.Conv2d(width, 2 * patch, 3, padding=1))
        nn.init.zeros_(self.last[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.last[-1].bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"shape={self.shape}, width={self.width}"

    def forward(
        self,
        noisy: Float[Tensor, "batch channel height width"],
        angle: Float[Tensor, " batch"],
        frame: Float[Tensor, "batch channel height width"],
        features: Float[Tensor, "batch features"],
    ) -> Float[Tensor, "batch channel height width"]:
        """Return the velocity.

        Args:
            noisy: z, with entries of about unit size.
            angle: a in (0, pi/2).
            frame: conditioning frame, centred: what is already known of the frame.
            features: conditioning vector.
        """
        phases = angle.unsqueeze(-1) * torch.arange(1, HARMONICS + 1, device=angle.device)
        level = angle.sin().log().unsqueeze(-1)
        known = torch.cat([features.to(angle.dtype), phases.sin(), phases.cos(), level / 4], dim=-1)
        modulation = self.condition(known).unflatten(-1, (len(self.blocks), 2, self.width)).unbind(1)
        patches, known_patches = self._patches(noisy), self._patches(frame)
        maps = self.stem(torch.cat([patches, known_patches], dim=1))
        for block, one in zip(self.blocks, modulation, strict=True):
            maps = block(maps, *one.unbind(1))
        gate, rest = self.last(maps).chunk(2, dim=1)
        cot = (angle.cos() / angle.sin()).to(patches.dtype)
        velocity = torch.addcmul(rest, gate, patches * cot[:, None, None, None])
        return paint(velocity, PATCH)[..., : self.shape[1], : self.shape[2]].to(noisy.dtype)

    def _patches(self, x: Tensor) -> Tensor:
        # Convert once, before cutting patches, so that autocast need not convert again.
        dtype = compute_dtype(x.device) if torch.is_autocast_enabled(x.device.type) else x.dtype
        padded = F.pad(x.to(dtype), self.pad)
        return rearrange(padded, "n c (h p) (w q) -> n h w (c p q)", p=PATCH, q=PATCH).permute(0, 3, 1, 2)
