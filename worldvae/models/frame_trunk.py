"""The features that reward and continuation read from the last frames."""

import torch
from einops import rearrange
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from worldvae.models.parts import WorldModelConfig, autocast
from worldvae.models.pixel_state import Window
from worldvae.networks import MLP, ConvEncoder, perceptron
from worldvae.types import ObservationLayout


class FrameTrunk(nn.Module):
    """Stacked frames and the actions that led to them, read by convolutions (vectors: by none), then a perceptron.

    Args:
        observation: what the environment shows.
        context: number of frames and actions.
        action: length of an action.
        config: sizes of convolutions and perceptron.

    Attributes:
        out_features: length of the features.
    """

    def __init__(self, observation: ObservationLayout, context: int, action: int, config: WorldModelConfig) -> None:
        super().__init__()
        self.layout, self.config, self.context = observation, config, context
        self.out_features = hidden = config.resolve("hidden")
        layers, kind = config.resolve("layers"), config.perceptron_kind
        self.encoder: ConvEncoder | None = None
        if observation.pixels is not None:
            channels, height, width = observation.pixels
            self.encoder = ConvEncoder((context * channels, height, width), config.resolve("depth"))
            self.perceptron: nn.Module = MLP(self.encoder.out_features + context * action, hidden, 1)
        else:
            entries = context * ((observation.vector or 0) + action)
            self.perceptron = perceptron(entries, hidden, layers, hidden, kind=kind)

    def centre(self, mean: Float[Tensor, " entry"]) -> None:
        """Let the convolutions read what differs from this mean frame in 0..1."""
        if self.encoder is not None and self.layout.pixels is not None:
            frame = mean.reshape(self.layout.pixels).repeat(self.context, 1, 1)
            self.encoder.centre.copy_(frame)

    def forward(self, window: Window) -> Float[Tensor, "*batch features"]:
        """Return the features of windows of any leading shape."""
        frames: Shaped[Tensor, "*batch context entry"] = window.frames
        if self.encoder is None or self.layout.pixels is None:
            seen = frames.flatten(-2)
        else:
            channels, height, width = self.layout.pixels
            stacked = rearrange(frames, "... k (c h w) -> ... (k c) h w", c=channels, h=height, w=width)
            with autocast(self.config, self.layout.pixels, frames.device):
                seen = self.encoder(stacked).float()
        out: Tensor = self.perceptron(torch.cat([seen, window.actions.flatten(-2)], dim=-1))
        return out
