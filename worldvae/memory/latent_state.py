"""The state of a sequential VAE: a memory h, a latent z, and further data that the memory carries between steps."""

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
