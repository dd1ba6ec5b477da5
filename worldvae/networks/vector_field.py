"""The perceptron that does for vectors what `PatchUNet` does for frames."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.networks.unet import CORRUPTION, LEVELS, Known, level_features

HIDDEN_LAYERS = 3


class VectorField(nn.Module):
    """F(u, level; vectors, actions) = perceptron + linear map; an untrained one outputs 0.

    There are no norms, which would hide how far u is from the origin, and all activations are smooth.

    Args:
        entries: length of a vector.
        context: number of vectors, and of actions, before the noisy one.
        action: length of an action.
        hidden: width of the three hidden layers.
    """

    def __init__(self, entries: int, context: int, action: int, hidden: int) -> None:
        super().__init__()
        features = entries + LEVELS + context * (entries + action) + 1
        layers: list[nn.Module] = []
        for k in range(HIDDEN_LAYERS):
            layers += [nn.Linear(hidden if k else features, hidden), nn.SiLU()]
        self.curved = nn.Sequential(*layers, nn.Linear(hidden, entries))
        self.straight = nn.Linear(features, entries, bias=False)
        for layer in layers:  # torch's default shrinks the signal, and the perceptron stays linear for long
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        for zero in (self.curved[-1].weight, self.curved[-1].bias, self.straight.weight):
            nn.init.zeros_(zero)  # type: ignore[arg-type]

    def look(
        self,
        frames: Float[Tensor, "batch context entry"],
        actions: Float[Tensor, "batch context action"],
        corruption: Float[Tensor, " batch"],
    ) -> Known:
        """Return what the network knows of the vectors and actions before, for `forward`; see `PatchUNet.look`."""
        return frames.flatten(1), torch.cat([CORRUPTION * corruption.unsqueeze(-1), actions.flatten(1)], dim=-1)

    def forward(
        self, u: Float[Tensor, "batch entry"], level: Float[Tensor, " batch"], known: Known
    ) -> Float[Tensor, "batch entry"]:
        """Return F; see `PatchUNet.forward`."""
        x = torch.cat([u, level_features(level), *known], dim=-1)
        out: Tensor = self.curved(x) + self.straight(x)
        return out.to(u.dtype)
