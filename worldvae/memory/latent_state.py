"""The state of a sequential VAE: a memory h, a latent z, and further data that the memory carries between steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.types import State


@dataclass(frozen=True)
class LatentState(State):
    """h and z of one step (or of many: leading axes are free), and further data for the next step."""

    memory: Float[Tensor, "*batch memory"]
    latent: Float[Tensor, "*batch latent"]
    past: Float[Tensor, "*batch past"] | None = None

    @cached_property
    def features(self) -> Float[Tensor, "*batch features"]:
        """Memory and latent concatenated (once, for all heads)."""
        return torch.cat([self.memory, self.latent], dim=-1)

    @property
    def without_memory(self) -> Float[Tensor, "*batch latent"]:
        """The latent z."""
        return self.latent

    @classmethod
    def joined(cls, states: Sequence["LatentState"]) -> "LatentState":
        """Return `stack(states, dim=1)` in float32, as views of one features tensor, which is written once."""
        parts = torch.cat([part for state in states for part in (state.memory, state.latent)], dim=-1)
        features = parts.unflatten(-1, (len(states), -1)).float()
        pasts = [state.past.float() for state in states if state.past is not None]
        past = torch.stack(pasts, dim=1) if len(pasts) == len(states) else None
        return cls.split(features, states[0].memory.shape[-1], past)

    @classmethod
    def split(
        cls, features: Float[Tensor, "*batch features"], size: int, past: Float[Tensor, "*batch past"] | None = None
    ) -> "LatentState":
        """Return the state with these features, the first `size` of which are the memory: views, without a copy."""
        state = cls(features[..., :size], features[..., size:], past)
        state.__dict__["features"] = features  # where the property caches its result
        return state

    @classmethod
    def of(cls, state: State) -> "LatentState":
        """Return `state` itself.

        Raises:
            ValueError: If it is the state of another kind of model.
        """
        if not isinstance(state, cls):
            raise ValueError(
                f"state is a {type(state).__name__}, but a memory and a latent are needed: give a LatentState, as "
                "model.initial and model.observe return them"
            )
        return state
