"""The protocol of a world model whose states are latent variables: diagnostics and bounds ask for no more than this."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.distributions import LatentFamily
from worldvae.memory import LatentState, Memory
from worldvae.models.senses import Senses
from worldvae.models.world_model import Observed, WorldModel
from worldvae.posteriors import Posterior
from worldvae.priors import Prior
from worldvae.types import Batch, Kind, Modality, Observation, State


@dataclass(frozen=True)
class Inferred(Observed):
    """The result of `observe`: posterior states, and the parameters of the q from which they were drawn."""

    posterior: LatentState
    parameters: Float[Tensor, "batch time parameter"]


@runtime_checkable
class Probabilistic(WorldModel, Protocol):
    """A world model whose states are a memory h and a latent z (`LatentState`), with p(z | h) and q(z | h, e).

    A class says that it is one by extending this: of a torch module whose parts are these attributes, Python's own
    check at run time would not see the parts.

    Attributes:
        senses: encoders, decoders and their units.
        memory: h' = f(h, z, a).
        family: of q.
        prior: p(z | h).
        posterior: q(z | h, e).
    """

    senses: Senses
    memory: Memory
    family: LatentFamily
    prior: Prior
    posterior: Posterior

    @property
    def density_kind(self) -> Kind:
        """What kind of number log p(x, z | h) is."""
        ...

    @property
    def looks_ahead(self) -> bool:
        """Whether the posterior of a row also depends on later rows: a smoother, not a filter."""
        ...

    def in_float32(self) -> "Probabilistic":
        """Return a copy that computes in float32 throughout, and whose parameters need no gradients."""
        ...

    def initial(self, batch: int) -> LatentState:
        """Return the state from which every episode starts, `[batch]`."""
        ...

    def embed(self, rows: Batch) -> Float[Tensor, "batch time embedding"]:
        """Return e, which the posterior reads, for rows `[batch, time]`; a smoother's e also depends on later rows."""
        ...

    def observe(
        self,
        batch: Batch,
        state: State | None = None,
        action: Float[Tensor, "batch action"] | None = None,
        generator: torch.Generator | None = None,
        *,
        mode: bool = False,
    ) -> Inferred:
        """Filter through rows of data, as `WorldModel.observe` does; return the parameters of q, too."""
        ...

    def log_likelihood(self, states: State, observation: Observation) -> dict[Modality, Float[Tensor, "*batch"]]:
        """Return log p(x | h, z) in nats of each modality that was observed.

        Args:
            states: any leading shape.
            observation: of the same leading shape, or of one that broadcasts to it.
        """
        ...

    def log_posterior(self, states: State, embedding: Float[Tensor, "*shape embedding"]) -> Float[Tensor, "*batch"]:
        """Return log q(z | h, e) in nats: how likely states are in the light of what was seen.

        Where q has levels (`prior=hierarchical`), each is conditioned on the modes of those above it.

        Args:
            states: any leading shape.
            embedding: e, as `embed` returns it, of the same leading shape, or of one that broadcasts to it: of one
                observation and many states, the part of q that does not depend on h is computed once.
        """
        ...
