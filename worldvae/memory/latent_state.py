"""The state of a sequential VAE: a memory h, a latent z, and what else the memory carries from step to step."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.types import State


@dataclass(frozen=True)
class LatentState(State):
    """h and z of one step (or of many: the leading axes are free), and what else the next step may need."""

    memory: Float[Tensor, "*batch memory"]
    latent: Float[Tensor, "*batch latent"]
    past: Float[Tensor, "*batch past"] | None = None

    @cached_property
    def features(self) -> Float[Tensor, "*batch features"]:
        """Memory and latent side by side (joined once, for all heads)."""
        return torch.cat([self.memory, self.latent], dim=-1)

    @classmethod
    def split(
        cls, features: Float[Tensor, "*batch features"], size: int, past: Float[Tensor, "*batch past"] | None = None
    ) -> "LatentState":
        """Return the state that has these features, of which the first `size` are the memory: views, nothing copied."""
        state = cls(features[..., :size], features[..., size:], past)
        state.__dict__["features"] = features  # where the property keeps what it has joined
        return state

    @classmethod
    def of(cls, state: State) -> "LatentState":
        """Return `state` itself.

        Raises:
            ValueError: If it is the state of another kind of model.
        """
        if not isinstance(state, cls):
            raise ValueError(
                f"state is a {type(state).__name__}, and this is about a memory and a latent: give a LatentState, as "
                "model.initial and model.observe return them"
            )
        return state
