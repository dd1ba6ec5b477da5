"""The state of a joint-embedding predictive world model."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from worldvae.types import State


@dataclass(frozen=True)
class JEPAState(State):
    """The latent of one step (or of many: leading axes are free), and what the next step needs besides.

    Attributes:
        latent: z, the encoder's output, or a prediction of it.
        memory: h of a recurrent predictor; None: the predictor has none.
        frames: the last frames that were seen, the oldest first, stacked on channels: `observe` needs them if it goes
            on from here. None: not known, and the next frame that is seen is repeated. An imagined state has those
            of the state in which its dream began.
    """

    latent: Float[Tensor, "*batch latent"]
    memory: Float[Tensor, "*batch memory"] | None = None
    frames: UInt8[Tensor, "*batch past height width"] | None = None

    @cached_property
    def features(self) -> Float[Tensor, "*batch features"]:
        """z, or h and z concatenated (once, for all heads)."""
        return self.latent if self.memory is None else torch.cat([self.memory, self.latent], dim=-1)

    @property
    def without_memory(self) -> Float[Tensor, "*batch latent"]:
        """The features that say what is seen now, without those that say what was seen before: z."""
        return self.latent

    @classmethod
    def of(cls, state: State) -> "JEPAState":
        """Return `state` itself.

        Raises:
            ValueError: If it is the state of another kind of model.
        """
        if not isinstance(state, cls):
            raise ValueError(
                f"state is a {type(state).__name__}, but the latent of a JEPA is needed: give a JEPAState, as "
                "model.initial and model.observe return them"
            )
        return state
