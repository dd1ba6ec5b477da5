"""Multi-layer perceptron: (Linear, LayerNorm, SiLU) x layers, then optionally a Linear."""

from jaxtyping import Float
from torch import Tensor, nn


class MLP(nn.Sequential):
    """Normalised perceptron.

    Args:
        features: length of the input vector.
        hidden: width of each hidden layer.
        layers: number of hidden layers.
        out: length of the output; None ends after the last activation.
        zero: start the last Linear at zero, so that the first prediction is neutral.
    """

    def __init__(self, features: int, hidden: int, layers: int, out: int | None = None, *, zero: bool = False) -> None:
        modules: list[nn.Module] = []
        width = features
        for _ in range(layers):
            modules += [nn.Linear(width, hidden, bias=False), nn.LayerNorm(hidden, eps=1e-3), nn.SiLU()]
            width = hidden
        if out is not None:
            last = nn.Linear(width, out)
            if zero:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            modules.append(last)
            width = out
        super().__init__(*modules)
        self.out_features = width

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        """Apply the layers to the last axis."""
        out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # torch left it bare
        return out
