"""The words of `model.stages`: whether frames and dynamics exchange gradients, or frames are learned separately."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from worldvae.memory import LatentState
from worldvae.models.registry import NORMED, LatentSizes, Part
from worldvae.posteriors import FramePosterior, Posterior
from worldvae.priors import Prior, TwoStagePrior
from worldvae.types import State


class OneStage:
    """All parts learn from one ELBO, and gradients flow between all of them."""

    def latents(self, prior: Prior, posterior: Callable[[], Posterior], sizes: LatentSizes) -> tuple[Prior, Posterior]:
        """Return p(z | h) and q(z | h, e)."""
        return prior, posterior()

    def shown_size(self, memory: int, latent: int) -> int:
        """Return the length of the vector that decoders read, for these lengths of h and z."""
        return memory + latent

    def shown(self, states: State) -> Float[Tensor, "*batch shown"]:
        """Return the vector that decoders read."""
        return states.features

    def onward(self, states: LatentState) -> LatentState:
        """Return the states that memory, reward and continuation read in training, made from posterior states."""
        return states


class TwoStages(OneStage):
    """A VAE of single frames, and dynamics that learn from its latents but send no gradients to it (World Models).

    Reference: Ha & Schmidhuber 2018, "Recurrent World Models Facilitate Policy Evolution", section 2.
    """

    def latents(self, prior: Prior, posterior: Callable[[], Posterior], sizes: LatentSizes) -> tuple[Prior, Posterior]:
        """Return p(z | h), whose KL sends no gradients to q, and q(z | e)."""
        return TwoStagePrior(prior), FramePosterior(sizes.embedding, sizes.family, sizes.hidden)

    def shown_size(self, memory: int, latent: int) -> int:
        """Return the length of z."""
        return latent

    def shown(self, states: State) -> Float[Tensor, "*batch shown"]:
        """Return z."""
        return LatentState.of(states).latent

    def onward(self, states: LatentState) -> LatentState:
        """Return the states with z detached."""
        return LatentState(states.memory, states.latent.detach(), states.past)


STAGES: dict[str, Part[OneStage]] = {
    "one": Part(OneStage),
    "two": Part(
        TwoStages,
        {"posterior": ("amortised",), "latent": ("gaussian", "full"), "context": ("filter",), **NORMED},
    ),
}
