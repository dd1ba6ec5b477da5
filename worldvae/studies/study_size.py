"""Equal size: how many parameters a model uses to plan, and the width that gives it as many as another."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from worldvae.models.world_model import WorldModel
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout

TOLERANCE = 0.05
"""Largest share by which sizes may differ and still be called equal."""

STEP = 8
"""Widths are multiples of this: memories in blocks and normalisation in groups need it."""


class _Touched(TorchDispatchMode):
    """Notes which of some tensors any operation reads."""

    def __init__(self, tensors: dict[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tensors, self.names = tensors, set[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and leaf.layout is torch.strided:
                name = self.tensors.get(leaf.untyped_storage().data_ptr())
                if name is not None:
                    self.names.add(name)
        return func(*args, **kwargs)


@torch.no_grad()
def planning_parameters(model: WorldModel) -> int:
    """Return the number of weights that `observe` and `imagine` read: encoder, dynamics, reward and continuation.

    What a plan does not need, such as decoders, probes and a second copy of weights, is not counted. Buffers of more
    than one axis count as weights: a slow copy that samples with its own weights keeps them there.
    """
    assert isinstance(model, nn.Module)
    weights = dict(model.named_parameters()) | {n: b for n, b in model.named_buffers() if b.dim() > 1}
    weights = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
    batch = _rows(model.observation_layout, model.action_layout, model.device)
    generator = torch.Generator(model.device).manual_seed(0)
    with _Touched({tensor.untyped_storage().data_ptr(): name for name, tensor in weights.items()}) as touched:
        state = model.observe(batch, generator=generator).posterior[:, -1]
        model.imagine(state, batch.action[:, :1], generator=generator, last_only=True)
    return sum(weights[name].numel() for name in touched.names)


def _rows(observation: ObservationLayout, action: ActionLayout, device: torch.device) -> Batch:
    """Return two rows of zeros for two episodes."""
    pixels = None if observation.pixels is None else torch.zeros(2, 2, *observation.pixels, dtype=torch.uint8)
    vector = None if observation.vector is None else torch.zeros(2, 2, observation.vector)
    flags = torch.zeros(2, 2, dtype=torch.bool)
    first = flags.clone()
    first[:, 0] = True
    return Batch(Observation(pixels, vector), torch.zeros(2, 2, action.size), torch.zeros(2, 2), flags, first).to(
        device
    )


@dataclass(frozen=True)
class Dialled:
    """A width, and what it makes of the size.

    Attributes:
        overrides: the settings of that width; none if nothing could be dialled.
        parameters: weights in use when planning.
        reference: those of the row to be as large as.
    """

    overrides: tuple[str, ...]
    parameters: int
    reference: int

    @property
    def off(self) -> float:
        """Share by which the size exceeds the reference."""
        return self.parameters / self.reference - 1

    def sentence(self) -> str:
        """Return the size in words, and whether it is equal."""
        said = f"{self.parameters / 1e6:.3f} M parameters in use when planning ({self.off:+.1%} of the reference's)"
        if abs(self.off) <= TOLERANCE:
            return said
        why = "it has nothing to dial" if not self.overrides else "no width comes closer"
        return f"{said}: not of equal size, {why}"


def dial(
    size_of: Callable[[tuple[str, ...]], int], templates: tuple[str, ...], reference: int, largest: int = 2048
) -> Dialled:
    """Return the width whose size is closest to the reference, found by bisection over multiples of `STEP`.

    Args:
        size_of: from settings to the number of weights in use; may raise for a width that does not fit.
        templates: settings with "{width}" for the number and "{wider}" for one and a half of it; none: the model stays
            as it is.
        reference: size to reach.
        largest: largest width.

    Raises:
        ValueError: As `size_of` does.
    """
    unchanged = Dialled((), size_of(()), reference)
    if not templates or abs(unchanged.off) <= TOLERANCE:
        return unchanged

    def at(step: int) -> Dialled:
        wider = STEP * -(-3 * step // 2)
        overrides = tuple(template.format(width=STEP * step, wider=wider) for template in templates)
        return Dialled(overrides, size_of(overrides), reference)

    # The size grows with the width: it is doubled until it is enough, so that no huge model is built, then bisected.
    low = high = 1
    tried = [at(high)]
    while tried[-1].parameters < reference and 2 * high <= largest // STEP:
        low, high = high + 1, 2 * high
        tried.append(at(high))
    while low < high:
        middle = (low + high) // 2
        tried.append(at(middle))
        low, high = (middle + 1, high) if tried[-1].parameters < reference else (low, middle)
    return min(tried, key=lambda one: abs(one.off))
