"""The parts that the words of a config select: how each is built, and which other settings it requires.

A new part is one entry: `PRIORS["laplace"] = Part(make, OVER_VECTORS)` makes `model.prior=laplace` a choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worldvae.distributions import CategoricalFamily, FullGaussianFamily, GaussianFamily, LatentFamily
from worldvae.memory import BlockGRUMemory, GRUMemory, MarkovConfig, MarkovMemory, Memory, TransformerMemory
from worldvae.networks import PerceptronKind
from worldvae.posteriors import AmortisedPosterior, FlowPosterior, Posterior, ResidualPosterior
from worldvae.priors import (
    EnergyPrior,
    FlowConfig,
    FlowMatchingConfig,
    FlowMatchingPrior,
    FlowPrior,
    HierarchicalConfig,
    HierarchicalPrior,
    MixtureConfig,
    MixturePrior,
    ParametricPrior,
    Prior,
    ShortcutConfig,
    ShortcutPrior,
    StandardPrior,
    VampConfig,
    VampPrior,
)

M = TypeVar("M")


@dataclass(frozen=True)
class Part(Generic[M]):
    """The part that a word of the config selects.

    Attributes:
        make: builds the part from the sizes around it and from the config section of the same name (None if there is
            no such section).
        fits: maps other settings of the model to the values that this part accepts; a setting that is not listed may
            have any value.
    """

    make: Callable[..., M]
    fits: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def check(self, setting: str, word: str, config: object) -> None:
        """Raise ValueError unless this part, `setting=word`, can be built with the other settings of `config`."""
        for other, fitting in self.fits.items():
            if (given := getattr(config, other)) not in fitting:
                wanted = " or ".join(fitting)
                raise ValueError(f"{setting}={word} cannot be built with {other}={given}: it needs {other}={wanted}")


@dataclass(frozen=True)
class Size:
    """The numbers that the setting `size` stands for."""

    memory: int
    hidden: int
    gaussian: int
    groups: int
    classes: int
    depth: int
    layers: int


@dataclass(frozen=True)
class MemorySizes:
    """The sizes a memory is built from: lengths of z, of the action vector and of h, and the kind of perceptrons."""

    latent: int
    action: int
    memory: int
    hidden: int
    perceptron: PerceptronKind = "normed"


@dataclass(frozen=True)
class LatentSizes:
    """The sizes of p(z | h) and q(z | h, e): the family of q, the lengths of h and e, the kind of their perceptrons."""

    family: LatentFamily
    memory: int
    embedding: int
    hidden: int
    perceptron: PerceptronKind = "normed"

    @property
    def latent(self) -> int:
        """Length of z."""
        return self.family.latent_size


NORMED = {"perceptron": ("normed",)}
"""Fits a part whose perceptrons always have norms, whatever `model.perceptron` says."""

OVER_VECTORS = {"latent": ("gaussian", "full"), **NORMED}
"""Fits a density over vectors z: any Gaussian family; one-hot latents have no such density."""

OWN_POSTERIOR = {"latent": ("gaussian",), "posterior": ("amortised",), "stages": ("one",), **NORMED}
"""Fits a prior that is built together with its posterior."""

FAMILIES: dict[str, Part[LatentFamily]] = {
    "gaussian": Part(lambda size: GaussianFamily(size.gaussian)),
    "full": Part(lambda size: FullGaussianFamily(size.gaussian)),
    "categorical": Part(lambda size: CategoricalFamily(size.groups, size.classes)),
}
"""Families of q(z | h, e), `model.latent`: built from a `Size`."""


def _gru(sizes: MemorySizes, _: None) -> GRUMemory:
    return GRUMemory(sizes.latent, sizes.action, sizes.memory, sizes.hidden, sizes.perceptron)


def _block_gru(sizes: MemorySizes, _: None) -> BlockGRUMemory:
    return BlockGRUMemory(sizes.latent, sizes.action, sizes.memory, sizes.hidden)


def _markov(sizes: MemorySizes, config: MarkovConfig) -> MarkovMemory:
    return MarkovMemory(sizes.latent, sizes.action, sizes.memory, sizes.hidden, sizes.perceptron, carry=config.carry)


def _transformer(sizes: MemorySizes, _: None) -> TransformerMemory:
    return TransformerMemory(sizes.latent, sizes.action, sizes.memory)


MEMORIES: dict[str, Part[Memory]] = {
    "gru": Part(_gru),
    "block_gru": Part(_block_gru, NORMED),
    "markov": Part(_markov, {"perceptron": ("normed", "bypassed")}),
    "transformer": Part(_transformer, NORMED),
}
"""h' = f(h, z, a), `model.memory`: built from `MemorySizes`."""


def _own(sizes: LatentSizes, _: None) -> ParametricPrior:
    return ParametricPrior(sizes.memory, sizes.family, sizes.hidden, kind=sizes.perceptron)


def _standard(sizes: LatentSizes, _: None) -> StandardPrior:
    return StandardPrior(sizes.latent)


def _mixture(sizes: LatentSizes, config: MixtureConfig) -> MixturePrior:
    return MixturePrior(sizes.memory, sizes.latent, sizes.hidden, config.components)


def _vamp(sizes: LatentSizes, config: VampConfig) -> tuple[Prior, Posterior]:
    shared = AmortisedPosterior(sizes.memory, sizes.embedding, sizes.family, sizes.hidden)
    return VampPrior(shared, sizes.memory, sizes.embedding, sizes.hidden, config.pseudo_inputs), shared


def _flow(sizes: LatentSizes, config: FlowConfig) -> FlowPrior:
    return FlowPrior(sizes.memory, sizes.latent, sizes.hidden, config.transforms)


def _hierarchical(sizes: LatentSizes, config: HierarchicalConfig) -> tuple[Prior, Posterior]:
    prior = HierarchicalPrior(sizes.memory, sizes.latent, sizes.hidden, config.levels)
    return prior, ResidualPosterior(prior, sizes.memory, sizes.embedding, sizes.hidden)


def _flow_matching(sizes: LatentSizes, config: FlowMatchingConfig) -> FlowMatchingPrior:
    return FlowMatchingPrior(sizes.memory, sizes.latent, sizes.hidden, config.steps, base="gaussian")


def _shortcut(sizes: LatentSizes, config: ShortcutConfig) -> ShortcutPrior:
    return ShortcutPrior(sizes.memory, sizes.latent, sizes.hidden, config)


def _energy(sizes: LatentSizes, _: None) -> EnergyPrior:
    return EnergyPrior(sizes.memory, sizes.latent, sizes.hidden)


PRIORS: dict[str, Part[Prior | tuple[Prior, Posterior]]] = {
    "own": Part(_own),
    "standard": Part(_standard, OVER_VECTORS),
    "mixture": Part(_mixture, OVER_VECTORS),
    "vamp": Part(_vamp, OWN_POSTERIOR),
    "flow": Part(_flow, OVER_VECTORS),
    "hierarchical": Part(_hierarchical, OWN_POSTERIOR),
    "flow_matching": Part(_flow_matching, OVER_VECTORS),
    "energy": Part(_energy, OVER_VECTORS),
    "shortcut": Part(_shortcut, OVER_VECTORS),
}
"""p(z | h), `model.prior`: built from `LatentSizes`; a prior that shares parameters with its posterior returns both."""


def _amortised(sizes: LatentSizes, _: None) -> AmortisedPosterior:
    return AmortisedPosterior(sizes.memory, sizes.embedding, sizes.family, sizes.hidden, kind=sizes.perceptron)


def _flow_posterior(sizes: LatentSizes, config: FlowConfig) -> FlowPosterior:
    return FlowPosterior(sizes.memory, sizes.embedding, sizes.latent, sizes.hidden, config.transforms)


POSTERIORS: dict[str, Part[Posterior]] = {
    "amortised": Part(_amortised),
    "flow": Part(_flow_posterior, OVER_VECTORS),
}
"""q(z | h, e), `model.posterior`: built from `LatentSizes`."""
