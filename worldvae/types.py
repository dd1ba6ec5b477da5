"""The data that modules exchange: frozen dataclasses of tensors; and the glossary of axes.

Axis words in annotations: batch, time, latent, memory, action, channel, height, width, sample.
Arrays are `[batch, time, ...]`; `*batch` stands for any number of leading axes.

The row convention (an off-by-one here is the commonest bug of this field): row t holds the observation x_t, the
reward r_t and the termination flag that *arrived with* x_t (r_0 = 0), the action a_t taken *at* x_t, and `is_first`.
The transition into row t uses a_{t-1}; at `is_first` the previous state and action are reset. An episode of T
environment steps has T + 1 rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Kind = Literal["exact", "lower_bound", "estimate", "unnormalised"]
"""What kind of number a likelihood is. Numbers of different kinds are not compared without saying so."""

_WEAKER: tuple[Kind, ...] = get_args(Kind)


def weakest(*kinds: Kind) -> Kind:
    """Return the kind of a number computed from numbers of these kinds: the last of them in the order of `Kind`."""
    return max(kinds, key=_WEAKER.index)


Modality = Literal["pixels", "vector"]
"""The modalities of an environment: the fields of an `Observation`."""

Tree = TypeVar("Tree", bound="TensorTree")  # not Self: the tests' run-time type checker does not know it


class TensorTree:
    """Base of the dataclasses below: applies tensor operations to every field that is not None."""

    def map(self: Tree, function: Callable[[Tensor], Tensor]) -> Tree:
        """Return a copy with `function` applied to every tensor, in nested trees too."""
        return type(self)(**{f.name: _map(getattr(self, f.name), function) for f in fields(self)})  # type: ignore[arg-type]

    def __getitem__(self: Tree, index: Any) -> Tree:
        """Index the leading axes of every tensor."""
        return self.map(lambda x: x[index])

    def detach(self: Tree) -> Tree:
        """Return a copy outside the autograd graph."""
        return self.map(Tensor.detach)

    def to(self: Tree, device: torch.device | str) -> Tree:
        """Return a copy on `device`."""
        return self.map(lambda x: x.to(device))

    def float(self: Tree) -> Tree:
        """Return a copy whose floats are float32; bytes (such as frames), integers and flags stay unchanged."""
        return self.map(lambda x: x.float() if x.is_floating_point() else x)

    def flatten(self: Tree, start: int = 0, end: int = 1) -> Tree:
        """Merge the leading axes `start..end` of every tensor into one."""
        return self.map(lambda x: x.flatten(start, end))

    @classmethod
    def stack(cls: type[Tree], trees: Sequence[Tree], dim: int) -> Tree:
        """Stack trees of one class and of equal shape along a new leading axis `dim`."""
        return _join(trees, lambda tensors: torch.stack(tensors, dim))

    @classmethod
    def cat(cls: type[Tree], trees: Sequence[Tree], dim: int) -> Tree:
        """Concatenate trees of one class along the leading axis `dim`."""
        return _join(trees, lambda tensors: torch.cat(tensors, dim))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name; `from_tensors` is the inverse.

        The names of a nested tree's tensors begin with the name of that tree: "observation/pixels".
        """
        found: dict[str, Tensor] = {}
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if isinstance(value, TensorTree):
                found |= {f"{f.name}/{name}": tensor for name, tensor in value.tensors().items()}
            elif value is not None:
                found[f.name] = value
        return found

    @classmethod
    def from_tensors(cls: type[Tree], tensors: Mapping[str, Tensor]) -> Tree:
        """Return the tree with these `tensors()`; every nested tree has the class of its field."""
        parts: dict[str, Any] = {}
        for name, tensor in tensors.items():
            first, _, rest = name.partition("/")
            if rest:
                parts.setdefault(first, {})[rest] = tensor
            else:
                parts[first] = tensor
        classes = {f.name: _tree_class(f.type) for f in fields(cls)}  # type: ignore[arg-type]
        return cls(**{k: classes[k].from_tensors(v) if isinstance(v, dict) else v for k, v in parts.items()})


def _tree_class(annotation: Any) -> type[TensorTree]:
    """Return the class of trees named in an annotation such as `Plan | None`; `TensorTree` if there is none."""
    kinds = (kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
    return next((kind for kind in kinds if issubclass(kind, TensorTree)), TensorTree)


def _join(trees: Sequence[Tree], join: Callable[[list[Tensor]], Tensor]) -> Tree:
    out: dict[str, Any] = {}
    for f in fields(trees[0]):  # type: ignore[arg-type]
        parts = [getattr(tree, f.name) for tree in trees]
        if isinstance(parts[0], TensorTree):
            out[f.name] = _join(parts, join)
        else:
            out[f.name] = None if parts[0] is None else join(parts)
    return type(trees[0])(**out)


def _map(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, TensorTree):
        return value.map(function)
    return None if value is None else function(value)


class State(TensorTree):
    """The state of a world after a step (or after many: leading axes are free), as represented by one model.

    Every kind of model has its own frozen dataclass, whose tensors are private to it: heads, planners and agents read
    `features`, and code that packs states uses `tensors()`.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        raise TypeError(
            "State is what the states of all models have in common: give VectorState(x) for a state that is one "
            "vector, LatentState(memory, latent) for one of a sequential VAE"
        )

    @property
    def features(self) -> Float[Tensor, "*batch features"]:
        """The vector that every head reads."""
        raise NotImplementedError

    @property
    def without_memory(self) -> Float[Tensor, "*batch part"]:
        """The part of the features that is compared with goals: all of them, unless a class says otherwise.

        A goal is seen as the first row of an episode: what a state remembers of earlier rows says nothing of it.
        """
        return self.features

    @property
    def size(self) -> int:
        """Length of the first axis: the number of states in a batch."""
        return self._any.shape[0]

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self._any.device

    @property
    def _any(self) -> Tensor:
        return next(iter(self.tensors().values()))


@dataclass(frozen=True)
class VectorState(State):
    """A state that is a single vector, such as a simulator's: its features are that vector."""

    vector: Float[Tensor, "*batch vector"]

    @property
    def features(self) -> Float[Tensor, "*batch vector"]:
        """The vector."""
        return self.vector


@dataclass(frozen=True)
class Observation(TensorTree):
    """An observation: frames (uint8 in 0..255, or float in 0..1), a vector, or both."""

    pixels: UInt8[Tensor, "*batch channel height width"] | Float[Tensor, "*batch channel height width"] | None = None
    vector: Float[Tensor, "*batch vector"] | None = None


@dataclass(frozen=True)
class Batch(TensorTree):
    """Rows of experience, `[batch, time]`, in the row convention of this module."""

    observation: Observation
    action: Float[Tensor, "*batch action"]
    reward: Float[Tensor, "*batch"]
    termination: Bool[Tensor, "*batch"]
    is_first: Bool[Tensor, "*batch"]


@dataclass(frozen=True)
class Dream(TensorTree):
    """An imagined roll-out of `horizon` steps from `start`.

    `states[:, k]` is the state after `actions[:, k]`; `rewards[:, k]` (mean of p(r | state)) and `continuations[:, k]`
    (probability that the episode continues) belong to that state. If only the last state was requested, `states` is
    `[batch, 1]`; `states[:, -1]` is the last state in both cases.
    """

    start: State
    states: State
    actions: Float[Tensor, "batch horizon action"]
    rewards: Float[Tensor, "batch horizon"]
    continuations: Float[Tensor, "batch horizon"]


@dataclass(frozen=True)
class ObservationLayout:
    """Shapes of an `Observation`: `pixels` as (channel, height, width), `vector` as its length."""

    pixels: tuple[int, int, int] | None = None
    vector: int | None = None


@dataclass(frozen=True)
class ActionLayout:
    """Shape of the float vector that represents an action of any Gymnasium space.

    The first `continuous` entries lie in [-1, 1]; then follows one one-hot block of `n` entries for each n in
    `categorical`.
    """

    continuous: int = 0
    categorical: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Length of the action vector."""
        return self.continuous + sum(self.categorical)

    @property
    def blocks(self) -> tuple[slice, ...]:
        """The slices of the one-hot blocks in the action vector."""
        out, start = [], self.continuous
        for n in self.categorical:
            out.append(slice(start, start + n))
            start += n
        return tuple(out)
