"""Distributions over action vectors of any layout, as an actor gives them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.nn import functional as F

from worldvae.distributions import FlatOneHot, one_hot_draw
from worldvae.networks import MLP
from worldvae.types import ActionLayout


class _Bound(torch.autograd.Function):
    """Clamp to [-1, 1], with a gradient that never pushes out and always pulls back in.

    Behind a tanh or a plain clamp, a mean that has reached the bound stays there: no gradient brings it back.

    Reference: Hausknecht & Stone 2016, "Deep Reinforcement Learning in Parameterized Action Space", section 5
    (inverting gradients; here cut off instead of scaled).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,), gradient = ctx.saved_tensors, gradients[0]
        outwards = ((x >= 1) & (gradient < 0)) | ((x <= -1) & (gradient > 0))  # of a loss that is descended
        return gradient.masked_fill(outwards, 0.0)


class ActionDistribution(Distribution):
    """Independent parts of an action vector: a bounded Normal for the box, a one-hot per categorical block.

    The box is N(mean, std) with mean in [-1, 1] and std in [min_std, 1], cut off at [-1, 1] when sampled;
    log-probability and entropy are those of the uncut Normal. One-hot blocks are mixed with 1 % uniform so that no
    action is ever given up.

    Args:
        parameters: two numbers per continuous entry (means first), then one logit per class.
        layout: shape of the action vector.

    Reference: Hafner et al. 2023, "Mastering Diverse Domains through World Models", section "Actor learning"
    (with tanh(mean) there).
    """

    arg_constraints: dict = {}  # type: ignore[type-arg]  # noqa: RUF012 (the name torch asks for)
    unimix = 0.01
    min_std = 0.1

    def __init__(self, parameters: Float[Tensor, "*batch parameter"], layout: ActionLayout) -> None:
        self.layout = layout
        n = layout.continuous
        raw = parameters[..., n : 2 * n]
        std = self.min_std + (1 - self.min_std) * torch.sigmoid(raw)
        mean: Tensor = _Bound.apply(parameters[..., :n])  # type: ignore[no-untyped-call]
        self.box = Normal(mean, std, validate_args=False)
        self.blocks: list[FlatOneHot] = []
        start = 2 * n
        for classes in layout.categorical:
            probs = torch.softmax(parameters[..., start : start + classes], dim=-1)
            probs = (1 - self.unimix) * probs + self.unimix / classes
            self.blocks.append(FlatOneHot(probs.unsqueeze(-2)))
            start += classes
        super().__init__(parameters.shape[:-1], torch.Size([layout.size]), validate_args=False)

    def draw(self, generator: torch.Generator | None) -> Float[Tensor, "*batch action"]:
        """Sample; the gradient passes through the box (also where it is cut off), not through one-hots."""
        shape, device = self.box.mean.shape, self.box.mean.device
        normal = torch.randn(shape, device=device, generator=generator)
        uniforms = [torch.rand(shape[:-1], device=device, generator=generator) for _ in self.blocks]
        return self.draw_from(normal, uniforms)

    def draw_from(
        self, normal: Float[Tensor, "*batch continuous"], uniforms: list[Tensor]
    ) -> Float[Tensor, "*batch action"]:
        """Turn noise into a sample: normal numbers for the box, numbers in [0, 1) for each block."""
        box = self.box.mean + self.box.stddev * normal
        parts = [box + (box.clamp(-1, 1) - box).detach()]
        for block, uniform in zip(self.blocks, uniforms, strict=True):
            parts.append(one_hot_draw(block.mean.detach(), uniform))
        return torch.cat(parts, dim=-1)

    @property
    def mode(self) -> Tensor:
        """The most likely action vector."""
        parts = [self.box.mean]
        for block in self.blocks:
            probs = block.mean
            parts.append(F.one_hot(probs.argmax(dim=-1), probs.shape[-1]).to(probs.dtype))
        return torch.cat(parts, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability summed over the parts."""
        n = self.layout.continuous
        total: Tensor = self.box.log_prob(value[..., :n]).sum(dim=-1)
        for block, where in zip(self.blocks, self.layout.blocks, strict=True):
            total = total + block.log_prob(value[..., where])
        return total

    def entropy(self) -> Tensor:
        """Entropy summed over the parts."""
        total: Tensor = self.box.entropy().sum(dim=-1)
        for block in self.blocks:
            total = total + block.entropy()
        return total


class Actor(nn.Module):
    """pi(a | h, z): a perceptron on the features.

    Args:
        features: length of the features.
        layout: shape of the action vector.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
    """

    def __init__(self, features: int, layout: ActionLayout, hidden: int, layers: int) -> None:
        super().__init__()
        self.layout = layout
        self.net = MLP(features, hidden, layers, 2 * layout.continuous + sum(layout.categorical), zero=True)

    def forward(self, features: Float[Tensor, "*batch features"]) -> ActionDistribution:
        """Return the distribution over action vectors."""
        return ActionDistribution(self.net(features).float(), self.layout)
