"""A U-Net over patches of 4 x 4 pixels that predicts what is missing in a noisy frame from frames and actions before.

Only the pixels themselves have full resolution: at 64 x 64 the finest maps are 16 x 16. All activations are smooth, and
all operations have second derivatives, so that the network can also be the gradient of an energy. Norms are over the
channels of a pixel: on a CPU the gradient of a group norm takes twenty times as long, three times that of a 3 x 3
convolution.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldvae.networks.conv import PATCH
from worldvae.networks.denoiser import ModulatedBlock
from worldvae.networks.mlp import MLP
from worldvae.networks.norm import ChannelNorm

OCTAVES = 4
LEVELS = 2 * OCTAVES + 1
"""Numbers in which a noise level is embedded."""

CORRUPTION = 20.0
"""Unit of the noise of the context: 0 .. 0.05 becomes 0 .. 1."""

Known = tuple[Tensor, Tensor]
"""What a network knows beside the noisy frame, computed once for all noise levels."""


def level_features(level: Float[Tensor, " batch"]) -> Float[Tensor, "batch features"]:
    """Return ln(sigma) / 4, and its sines and cosines at four frequencies."""
    phases = level.unsqueeze(-1) * 2.0 ** torch.arange(OCTAVES, device=level.device)
    return torch.cat([level.unsqueeze(-1), phases.sin(), phases.cos()], dim=-1)


class PatchUNet(nn.Module):
    """F(u, level; frames, actions): residual blocks that noise level and actions modulate, and skip connections.

    Actions enter twice: in the modulation, and as constant planes beside the frames. An untrained network outputs 0.

    Args:
        shape: (channel, height, width) of a frame; frames are padded to whole cells of the coarsest map.
        context: number of frames, and of actions, before the noisy frame.
        action: length of an action.
        widths: channels of the maps, finest first; each map is half as large as the one before.

    Reference: Ronneberger et al. 2015, "U-Net"; Dhariwal & Nichol 2021, "Diffusion Models Beat GANs", section 3;
    Alonso et al. 2024, "Diffusion for World Modeling" (DIAMOND).
    """

    def __init__(self, shape: tuple[int, int, int], context: int, action: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.context, self.widths = shape, context, widths
        cell = PATCH * 2 ** (len(widths) - 1)
        self.pad = (0, -shape[2] % cell, 0, -shape[1] % cell)
        patch, first, last = shape[0] * PATCH**2, widths[0], widths[-1]
        self.stem = nn.Conv2d(patch, first, 3, padding=1)
        self.context_stem = nn.Conv2d(context * (patch + action), first, 3, padding=1)
        self.down = nn.ModuleList(ModulatedBlock(width) for width in widths)
        self.downward = nn.ModuleList(
            nn.Conv2d(fine, coarse, 4, stride=2, padding=1) for fine, coarse in pairwise(widths)
        )
        self.middle = ModulatedBlock(last)
        self.upward = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairwise(widths))
        self.merge = nn.ModuleList(nn.Conv2d(2 * width, width, 1) for width in widths)
        self.up = nn.ModuleList(ModulatedBlock(width) for width in widths)
        self.last = nn.Sequential(ChannelNorm(first, eps=1e-3), nn.SiLU(), nn.Conv2d(first, patch, 3, padding=1))
        self.sizes = [2 * width for width in (*widths, last, *widths)]
        self.condition = MLP(LEVELS + 1 + context * action, 4 * first, 1, sum(self.sizes))
        blocks = (part for part in self.modules() if isinstance(part, ModulatedBlock))
        for zero in (self.last[-1], *(block.rest[-1] for block in blocks)):
            nn.init.zeros_(zero.weight)  # type: ignore[arg-type]
            nn.init.zeros_(zero.bias)  # type: ignore[arg-type]
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"shape={self.shape}, context={self.context}, widths={self.widths}"

    def look(
        self,
        frames: Float[Tensor, "batch context entry"],
        actions: Float[Tensor, "batch context action"],
        corruption: Float[Tensor, " batch"],
    ) -> Known:
        """Return what the network knows of the frames and actions before, for `forward`.

        Args:
            frames: flat frames, oldest first.
            actions: the action taken at each of them.
            corruption: standard deviation of the noise in the frames.
        """
        stacked = self._patches(frames.reshape(len(frames), -1, *self.shape[1:]))
        planes = actions.flatten(1)[..., None, None].expand(-1, -1, *stacked.shape[2:])
        maps: Tensor = self.context_stem(_channels_last(torch.cat([stacked, planes], dim=1)))
        return maps, torch.cat([CORRUPTION * corruption.unsqueeze(-1), actions.flatten(1)], dim=-1)

    def forward(
        self, u: Float[Tensor, "batch entry"], level: Float[Tensor, " batch"], known: Known
    ) -> Float[Tensor, "batch entry"]:
        """Return F.

        Args:
            u: flat noisy frames, of unit variance.
            level: ln(sigma) / 4.
            known: result of `look`.
        """
        past, vector = known
        modulation = iter(self.condition(torch.cat([level_features(level), vector], dim=-1)).split(self.sizes, dim=-1))
        maps = past + self.stem(_channels_last(self._patches(u.reshape(-1, *self.shape))))
        skips = []
        for i, block in enumerate(self.down):
            maps = block(self.downward[i - 1](maps) if i else maps, *next(modulation).chunk(2, dim=-1))
            skips.append(maps)
        maps = self.middle(maps, *next(modulation).chunk(2, dim=-1))
        scales = list(modulation)
        for i in reversed(range(len(self.up))):
            if i < len(self.up) - 1:
                maps = _channels_last(F.pixel_shuffle(self.upward[i](maps), 2))
            maps = self.merge[i](torch.cat([maps, skips[i]], dim=1))
            maps = self.up[i](maps, *scales[i].chunk(2, dim=-1))
        out = F.pixel_shuffle(self.last(maps), PATCH)[..., : self.shape[1], : self.shape[2]]
        return out.flatten(1).to(u.dtype)

    def _patches(self, x: Tensor) -> Tensor:
        return F.pixel_unshuffle(F.pad(x, self.pad) if any(self.pad) else x, PATCH)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
