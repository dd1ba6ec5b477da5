"""What a world model is made of: the config, and the part behind each of its words."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn

from worldvae.config import setting
from worldvae.distributions import LatentFamily, check_bins
from worldvae.likelihoods import GaussianLikelihood, ScalarGaussianLikelihood, TwoHotLikelihood
from worldvae.memory import MarkovConfig, Memory
from worldvae.models.frames import FRAMES, FrameSizes, frames_of
from worldvae.models.registry import FAMILIES, MEMORIES, POSTERIORS, PRIORS, LatentSizes, MemorySizes, Part, Size
from worldvae.models.stages import STAGES, OneStage
from worldvae.networks import (
    MLP,
    PERCEPTRONS,
    TRUNKS,
    BypassedMLP,
    ConvEncoder,
    PerceptronKind,
    StridedEncoder,
    perceptron,
)
from worldvae.posteriors import Posterior
from worldvae.priors import (
    FlowConfig,
    FlowMatchingConfig,
    HierarchicalConfig,
    MixtureConfig,
    Prior,
    VampConfig,
)
from worldvae.system.precision import PRECISIONS, faster_precision

TABLES: dict[str, Mapping[str, Part[Any]]] = {
    "latent": FAMILIES,
    "memory": MEMORIES,
    "prior": PRIORS,
    "posterior": POSTERIORS,
    "stages": STAGES,
}
"""The settings whose words are in the registry."""

SIZES = {
    "tiny": Size(memory=64, hidden=64, gaussian=8, groups=8, classes=8, depth=8, layers=1),
    "small": Size(memory=128, hidden=128, gaussian=16, groups=16, classes=16, depth=16, layers=2),
    "base": Size(memory=512, hidden=512, gaussian=32, groups=32, classes=16, depth=32, layers=2),
    "large": Size(memory=2048, hidden=768, gaussian=64, groups=32, classes=32, depth=48, layers=3),
}


@dataclass(frozen=True)
class WorldModelConfig:
    """Parts of a world model; numbers left at 0 follow from `size`.

    Numbers of one part alone are in the section that has its name (`prior=mixture`, `mixture.components=5`).

    Attributes:
        kind: which kind of world model (`worldvae.models.kinds`); all other words here are of the sequential VAE.
        size: sets every number below that is 0.
        trunk: convolutions of the encoder and decoder of frames.
        memory: h' = f(h, z, a).
        latent: family of the posterior: diagonal Gaussians, Gaussians of "full" covariance, or categoricals.
        prior: p(z | h); "own" is the posterior's family. All others need a Gaussian z; "hierarchical" brings a
            posterior of its own, which corrects it level after level.
        posterior: "amortised" is the family itself, "flow" carries a Gaussian's noise through couplings.
        context: what the posterior is given: "filter" the present frame, "smooth" in training also what comes after it.
        stages: "two" is the World Models recipe: a VAE of single frames, and the rest learns on its latents.
        frames: p(x | h, z) of frames: Gaussian with one sigma, or with a predicted one per pixel ("heteroscedastic"); a
            discretised logistic, whose numbers are probabilities of bytes; Bernoulli, for frames of black and white;
            that Gaussian, and a "diffusion" that renders sharp frames on demand.
        memory_size: length of h.
        hidden: width of every perceptron.
        depth: channels of the widest maps of a trunk.
        layers: hidden layers of the heads.
        gaussian: length of a Gaussian z.
        groups: categorical variables of a categorical z.
        classes: of each of them.
        perceptron: "normed" layers hardly see how long their input is, which matters where magnitudes do (vectors of
            few entries, about linear dynamics): "bypassed" takes linear maps around those that vectors, memory, prior,
            posterior and a Gaussian reward pass through. "plain" ones, those of reward and continuation, too, have ReLU
            alone in place of norms and SiLU, as PlaNet's have: faster to plan with. (The heads of an ensemble keep
            theirs.)
        ensemble: heads beside the prior whose disagreement says where the model does not know (0: none).
        reward: p(r | h, z): "two_hot" over bins, for rewards of any scale; or "gaussian" with one learned sigma, whose
            mean is smooth, for rewards that are a smooth function of the state and of one scale, which the first
            (random) play has to show.
        bins: of the reward's two-hot distribution.
        pixel_sigma: standard deviation of frames in 0..1; where it is learned, its first value.
        pixel_sigma_learned: whether it is.
        vector_sigma: of vectors, in units of their spread in the first data; where it is learned, its first value.
        vector_sigma_learned: whether it is, one for every entry.
        vector_symlog: whether vectors are seen through symlog, which tames entries of any scale.
        markov: of memory=markov.
        mixture: of prior=mixture.
        vamp: of prior=vamp.
        flow: of prior=flow and posterior=flow.
        hierarchical: of prior=hierarchical.
        flow_matching: of prior=flow_matching.
        precision: what convolutions and imagination compute in: float32, bfloat16, or "auto", whichever this processor
            is measured to be faster in (`worldvae.system.precision`). Memories and distributions are float32 in any
            case.
        compile: whether steps that are imagined without gradients are compiled: 3 to 10 % faster on a CPU, after half a
            minute of compilation for each new number of dreams. Needs a C++ compiler.
    """

    MOVED: ClassVar[dict[str, str]] = {
        "bfloat16": "give model.precision=auto, float32 or bfloat16",
        "memory_action": "give model.markov.carry=true",
        "components": "give model.mixture.components=N or model.vamp.pseudo_inputs=N",
        "levels": "give model.hierarchical.levels=N",
        "transforms": "give model.flow.transforms=N",
        "sampling": "give model.flow_matching.steps=N",
        "bypass": "give model.perceptron=bypassed",
        "plain": "give model.perceptron=plain",
    }

    kind: str = "sequential_vae"
    size: str = setting("small", choices=list(SIZES))
    trunk: str = setting("patch", choices=["patch", *TRUNKS])
    memory: str = setting("gru", choices=MEMORIES)
    latent: str = setting("gaussian", choices=FAMILIES)
    prior: str = setting("own", choices=PRIORS)
    posterior: str = setting("amortised", choices=POSTERIORS)
    context: str = setting("filter", choices=["filter", "smooth"])
    stages: str = setting("one", choices=STAGES)
    frames: str = setting("gaussian", choices=FRAMES)
    reward: str = setting("two_hot", choices=["two_hot", "gaussian"])
    memory_size: int = 0
    hidden: int = 0
    depth: int = 0
    layers: int = 0
    gaussian: int = 0
    groups: int = 0
    classes: int = 0
    perceptron: str = setting("normed", choices=PERCEPTRONS)
    ensemble: int = 0
    bins: int = 255
    pixel_sigma: float = 0.25
    pixel_sigma_learned: bool = False
    vector_sigma: float = 1.0
    vector_sigma_learned: bool = True
    vector_symlog: bool = True
    markov: MarkovConfig = field(default_factory=MarkovConfig)
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    vamp: VampConfig = field(default_factory=VampConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    hierarchical: HierarchicalConfig = field(default_factory=HierarchicalConfig)
    flow_matching: FlowMatchingConfig = field(default_factory=FlowMatchingConfig)
    precision: str = setting("auto", choices=PRECISIONS)
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("memory_size", "hidden", "depth", "layers", "gaussian", "groups", "classes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} cannot be negative; 0 takes what size sets")
        for name, table in TABLES.items():
            word = getattr(self, name)
            if word not in table:
                raise ValueError(f"{name}={word} is none of {', '.join(table)}")
            table[word].check(name, word, self)
        if self.ensemble < 0 or self.ensemble == 1:
            raise ValueError(f"ensemble={self.ensemble} cannot disagree: take at least 2 heads, or 0 for none")
        check_bins(self.bins)
        if self.compile and not any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl")):
            raise ValueError("compile=true needs a C++ compiler, such as g++, and there is none; take compile=false")
        for name in ("pixel_sigma", "vector_sigma"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")

    def resolve(self, field: str) -> int:
        """Return a number of this config, or the one that `size` sets."""
        names = {"memory_size": "memory"}
        return int(getattr(self, field, 0) or getattr(SIZES[self.size], names.get(field, field)))

    def section(self, part: str) -> Any:
        """Return the section of the part that has this name, or None if it has none."""
        found = getattr(self, part, None)
        return found if is_dataclass(found) else None

    @property
    def perceptron_kind(self) -> PerceptronKind:
        """`perceptron`, by the type that networks ask for."""
        return cast(PerceptronKind, self.perceptron)


def family_defaults() -> dict[str, Any]:
    """Return the settings of a `WorldModelConfig` that a family decides, at their defaults: words and sections."""
    config = WorldModelConfig()
    sections = {f.name: asdict(getattr(config, f.name)) for f in fields(config) if config.section(f.name)}
    return {name: getattr(config, name) for name in ("kind", *TABLES, "context", "frames")} | sections


def choose_precision(config: WorldModelConfig, pixels: tuple[int, int, int] | None, device: torch.device) -> str:
    """Return "float32" or "bfloat16": what `config.precision` says or, if that is "auto", what is faster on `device`.

    Args:
        config: the model's.
        pixels: (channel, height, width) of its frames, if it sees any.
        device: where it computes.
    """
    if config.precision != "auto":
        return config.precision
    hidden, depth = config.resolve("hidden"), config.resolve("depth")
    maps = None if pixels is None else (depth, max(4, pixels[1] // 4), max(4, pixels[2] // 4))
    return faster_precision(device, hidden, maps)


def autocast(config: WorldModelConfig, pixels: tuple[int, int, int] | None, device: torch.device) -> torch.autocast:
    """Return the context in which large matrix products and convolutions run in what `choose_precision` says."""
    narrow = choose_precision(config, pixels, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=narrow)


def make_family(config: WorldModelConfig) -> LatentFamily:
    """Return the family of q."""
    size = Size(**{f.name: config.resolve("memory_size" if f.name == "memory" else f.name) for f in fields(Size)})
    return FAMILIES[config.latent].make(size)


def make_memory(config: WorldModelConfig, latent: int, action: int) -> Memory:
    """Return h' = f(h, z, a) for these lengths of z and of the action vector."""
    size, hidden = config.resolve("memory_size"), config.resolve("hidden")
    sizes = MemorySizes(latent, action, size, hidden, config.perceptron_kind)
    return MEMORIES[config.memory].make(sizes, config.section(config.memory))


def make_stages(config: WorldModelConfig) -> OneStage:
    """Return what says which gradients reach which parts."""
    return STAGES[config.stages].make()


def make_latents(
    config: WorldModelConfig, family: LatentFamily, memory: int, embedding: int
) -> tuple[Prior, Posterior]:
    """Return p(z | h) and q(z | h, e) for these lengths of h and e."""
    sizes = LatentSizes(family, memory, embedding, config.resolve("hidden"), config.perceptron_kind)

    def posterior() -> Posterior:
        return POSTERIORS[config.posterior].make(sizes, config.section(config.posterior))

    made = PRIORS[config.prior].make(sizes, config.section(config.prior))
    return made if isinstance(made, tuple) else make_stages(config).latents(made, posterior, sizes)


def make_vector(config: WorldModelConfig, entries: int, features: int) -> tuple[MLP | BypassedMLP, GaussianLikelihood]:
    """Return the perceptrons from vectors of so many entries to embeddings, and p(x | h, z) from such features."""
    hidden, layers, kind = config.resolve("hidden"), config.resolve("layers"), config.perceptron_kind
    encoder: MLP | BypassedMLP = MLP(entries, hidden, layers, kind=kind)
    if kind == "bypassed":  # made after the other: a seed gives the weights it has always given
        encoder = BypassedMLP(entries, hidden, layers, hidden)
    trunk = perceptron(features, hidden, layers, entries, zero=True, kind=kind)
    learned = "each" if config.vector_sigma_learned else None
    return encoder, GaussianLikelihood(trunk, (entries,), sigma=config.vector_sigma, learned=learned)


def make_reward(config: WorldModelConfig, features: int) -> TwoHotLikelihood | ScalarGaussianLikelihood:
    """Return p(r | h, z) from such features."""
    hidden, layers, kind = config.resolve("hidden"), config.resolve("layers"), config.perceptron_kind
    if config.reward == "gaussian":  # one hidden layer behind a norm draws no good parabola: two do
        layers = max(2, layers)
        trunk = perceptron(features, hidden, layers, 1, zero=True, kind=kind)
        return ScalarGaussianLikelihood(trunk)
    return TwoHotLikelihood(MLP(features, hidden, layers, config.bins, zero=True, kind=kind))


def make_frames(
    config: WorldModelConfig, pixels: tuple[int, int, int], features: int
) -> tuple[ConvEncoder | StridedEncoder, nn.Module]:
    """Return the convolutions from frames to embeddings, and p(x | h, z) from features of this length."""
    depth = config.resolve("depth")
    sizes = FrameSizes(pixels, features, depth, config.pixel_sigma, config.pixel_sigma_learned)
    return frames_of(config.frames, config.trunk, sizes)
