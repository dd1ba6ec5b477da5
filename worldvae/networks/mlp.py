"""Multi-layer perceptrons: (Linear, LayerNorm, SiLU) x layers, then optionally a Linear.

The first layer has no bias and is normalised: such a perceptron reads the direction of its input and hardly its length,
and of a single number little more than its sign. A parallel linear layer ("bypass") keeps magnitudes. A plain
perceptron, (Linear, ReLU) x layers, makes fewer passes over its activations, which dominate the time of small layers.
"""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.networks.norm import LayerNorm

PerceptronKind = Literal["normed", "plain", "bypassed"]
"""How perceptrons are built: norm and SiLU after every layer, ReLU instead, or norm and SiLU plus a linear bypass."""

PERCEPTRONS: tuple[PerceptronKind, ...] = get_args(PerceptronKind)


class Linear(nn.Linear):
    """torch's Linear that also accepts inputs of length 0, such as the memory of a static VAE."""

    def reset_parameters(self) -> None:
        """Draw the initial weights, unless there are none: torch would warn."""
        if self.in_features:
            super().reset_parameters()
        elif self.bias is not None:
            nn.init.zeros_(self.bias)


def _activation(width: int, kind: PerceptronKind) -> list[nn.Module]:
    return [nn.ReLU()] if kind == "plain" else [LayerNorm(width, eps=1e-3), nn.SiLU()]


class MLP(nn.Sequential):
    """A perceptron with norms, or a plain one; `BypassedMLP` adds a bypass.

    Args:
        features: length of the input vector.
        hidden: width of each hidden layer.
        layers: number of hidden layers.
        out: length of the output; None: the output is the last activation.
        zero: initialise the last Linear at zero, so that the first prediction is neutral.
        kind: what follows every layer; "bypassed" means the same as "normed" here.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        layers: int,
        out: int | None = None,
        *,
        zero: bool = False,
        kind: PerceptronKind = "normed",
    ) -> None:
        modules: list[nn.Module] = []
        width = features
        for _ in range(layers):
            modules += [Linear(width, hidden, bias=kind == "plain"), *_activation(hidden, kind)]
            width = hidden
        if out is not None:
            last = Linear(width, out)
            if zero:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
            modules.append(last)
            width = out
        super().__init__(*modules)
        self.out_features = width

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        """Apply the layers to the last axis."""
        out: Tensor = super().forward(x)  # type: ignore[no-untyped-call]  # torch does not annotate it
        return out


class BypassedMLP(nn.Module):
    """mlp(x) + W x: a linear map, which keeps magnitudes, plus a perceptron whose output is initially zero.

    Args:
        features: length of the input vector.
        hidden: width of each hidden layer.
        layers: number of hidden layers.
        out: length of the output.
        zero: initialise W at zero, too, so that the first prediction is neutral.

    Reference: He et al. 2016, "Identity Mappings in Deep Residual Networks", section 3 (shortcuts without a norm).
    """

    def __init__(self, features: int, hidden: int, layers: int, out: int, *, zero: bool = False) -> None:
        super().__init__()
        self.curved = MLP(features, hidden, layers, out, zero=True)
        self.straight = Linear(features, out, bias=False)
        if zero:
            nn.init.zeros_(self.straight.weight)
        self.out_features = out

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        """Apply both maps to the last axis and add the results."""
        out: Tensor = self.curved(x) + self.straight(x)
        return out


def perceptron(
    features: int, hidden: int, layers: int, out: int, *, zero: bool = False, kind: PerceptronKind = "normed"
) -> MLP | BypassedMLP:
    """Return a perceptron of this kind."""
    if kind == "bypassed":
        return BypassedMLP(features, hidden, layers, out, zero=zero)
    return MLP(features, hidden, layers, out, zero=zero, kind=kind)


class JointMLP(nn.Module):
    """An `MLP` of [x, y] whose first layer can be applied to y beforehand, to all time steps at once.

    mlp([x, y]) = rest(W_x x + W_y y) [+ V (W_x x + W_y y), the bypass];  `project(y)` is W_y y.

    Args:
        features: length of x.
        given: length of y.
        hidden: width of each hidden layer.
        layers: number of hidden layers; with 0 it is one linear map, which needs `out`.
        out: length of the output; None: the output is the last activation.
        kind: kind of the layers; "bypassed" adds V.
    """

    def __init__(
        self,
        features: int,
        given: int,
        hidden: int,
        layers: int,
        out: int | None = None,
        *,
        kind: PerceptronKind = "normed",
    ) -> None:
        super().__init__()
        assert layers or out is not None
        width = hidden if layers or out is None else out
        self.project = Linear(given, width, bias=kind != "normed" or not layers)
        self.join = Linear(features, width, bias=False)
        for part in (self.project, self.join):
            bound = (features + given) ** -0.5  # as for one matrix over both inputs
            nn.init.uniform_(part.weight, -bound, bound)
        self.rest: nn.Module = nn.Identity()
        if layers:
            self.rest = nn.Sequential(*_activation(hidden, kind), MLP(hidden, hidden, layers - 1, out, kind=kind))
        self.bypass = Linear(hidden, out or hidden, bias=False) if kind == "bypassed" and layers else None

    def forward(
        self, x: Float[Tensor, "*batch features"], projected: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch out"]:
        """Return mlp([x, y]) for `projected = project(y)`."""
        if x.dim() == 2 and x.shape[:1] == projected.shape[:-1]:  # (adds within the matrix product, which saves a pass)
            mixed = torch.addmm(projected, x, self.join.weight.T)
        else:
            mixed = self.join(x) + projected
        out: Tensor = self.rest(mixed)
        return out if self.bypass is None else out + self.bypass(mixed)
