"""Whether frames and dynamics learn on one another's gradients, or the frames apart: `model.stages`."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from worldvae.memory import LatentState
from worldvae.models.registry import NORMED, LatentSizes, Part
from worldvae.posteriors import FramePosterior, Posterior
from worldvae.priors import Prior, TwoStagePrior
from worldvae.types import State


class OneStage:
    """All parts learn on one bound, and their gradients reach one another."""

    def latents(self, prior: Prior, posterior: Callable[[], Posterior], sizes: LatentSizes) -> tuple[Prior, Posterior]:
        """Return p(z | h) and q(z | h, e)."""
        return prior, posterior()

    def shown_size(self, memory: int, latent: int) -> int:
        """Return the length of what decoders read, for these lengths of h and z."""
        return memory + latent

    def shown(self, states: State) -> Float[Tensor, "*batch shown"]:
        """Return what decoders read."""
        return states.features

    def onward(self, states: LatentState) -> LatentState:
        """Return what memory, reward and continuation read of posterior states in training."""
        return states


class TwoStages(OneStage):
    """A VAE of single frames, and dynamics that learn on its latents without shaping them (World Models).

    Reference: Ha & Schmidhuber 2018, "Recurrent World Models Facilitate Policy Evolution", section 2.
    """

    def latents(self, prior: Prior, posterior: Callable[[], Posterior], sizes: LatentSizes) -> tuple[Prior, Posterior]:
        """Return p(z | h), which q is not held against, and q(z | e)."""
        return TwoStagePrior(prior), FramePosterior(sizes.embedding, sizes.family, sizes.hidden)

    def shown_size(self, memory: int, latent: int) -> int:
        """Return the length of z."""
        return latent

    def shown(self, states: State) -> Float[Tensor, "*batch shown"]:
        """Return z."""
        return LatentState.of(states).latent

    def onward(self, states: LatentState) -> LatentState:
        """Return the states with a z that they do not shape."""
        return LatentState(states.memory, states.latent.detach(), states.past)


STAGES: dict[str, Part[OneStage]] = {
    "one": Part(OneStage),
    "two": Part(
        TwoStages,
        {"posterior": ("amortised",), "latent": ("gaussian", "full"), "context": ("filter",), **NORMED},
    ),
}
