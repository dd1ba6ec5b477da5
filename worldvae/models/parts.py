"""The config of the sequential VAE, and the functions that build each part from it."""

import math
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, ClassVar, cast

import torch
from torch import nn

from worldvae.config import setting
from worldvae.distributions import LatentFamily, check_bins
from worldvae.likelihoods import GaussianLikelihood, ScalarGaussianLikelihood, TwoHotLikelihood
from worldvae.memory import MarkovConfig, Memory
from worldvae.models.frames import FRAMES, FrameSizes, frames_of
from worldvae.models.kind_sections import READS, JEPAConfig, PixelDiffusionConfig, PixelEnergyConfig
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
    ShortcutConfig,
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
"""The settings whose accepted words are listed in the registry."""

VAE_PARTS = ("latent", "prior", "posterior", "stages", "context", "frames", "ensemble")
"""The settings that say what a VAE is made of, and nothing to a kind that does not list them in `READS`."""

SIZES = {
    "tiny": Size(memory=64, hidden=64, gaussian=8, groups=8, classes=8, depth=8, layers=1),
    "small": Size(memory=128, hidden=128, gaussian=16, groups=16, classes=16, depth=16, layers=2),
    "base": Size(memory=512, hidden=512, gaussian=32, groups=32, classes=16, depth=32, layers=2),
    "large": Size(memory=2048, hidden=768, gaussian=64, groups=32, classes=32, depth=48, layers=3),
}


@dataclass(frozen=True)
class WorldModelConfig:
    """The parts of a world model and their sizes; a number that is 0 takes the value that `size` sets for it.

    Settings that only one part reads are in a section of that part's name (`prior=mixture`, `mixture.components=5`).

    Attributes:
        kind: kind of world model (`worldvae.models.kinds`). The words of parts below are those of the sequential VAE;
            other kinds have a section of their name, and read the sizes.
        size: sets every number below that is 0.
        trunk: convolutions of the encoder and decoder of frames.
        memory: h' = f(h, z, a).
        latent: family of the posterior: diagonal Gaussians, Gaussians of "full" covariance, or categoricals.
        prior: p(z | h); "own" uses the posterior's family. All others need a Gaussian z; "hierarchical" brings its own
            posterior, which corrects the prior level by level.
        posterior: "amortised" is the family itself, "flow" transforms a Gaussian's noise by coupling layers.
        context: what the posterior reads: "filter" the present frame only, "smooth" during training later frames, too.
        stages: "two" is the World Models recipe: a VAE learns single frames, and the dynamics learn on its latents.
        frames: p(x | h, z) of frames: a "gaussian" with one sigma, or "heteroscedastic" with one predicted sigma per
            pixel; "logistic", discretised, so that its densities are probabilities of byte values; "bernoulli" for
            black-and-white frames; "diffusion", that Gaussian plus a diffusion that renders sharp frames on demand.
        memory_size: length of h.
        hidden: width of every perceptron.
        depth: channels of the widest feature maps of a trunk.
        layers: hidden layers of the heads.
        gaussian: length of a Gaussian z.
        groups: number of categorical variables of a categorical z.
        classes: number of classes of each of these variables.
        perceptron: "normed" layers normalise their input and so lose most of its magnitude. "bypassed" adds a parallel
            linear layer to the perceptrons of vectors, memory, prior, posterior and a Gaussian reward; use it where
            magnitudes matter (short vectors, linear dynamics). "plain" has ReLU in place of norms and SiLU, as in
            PlaNet, in these and in the heads of reward and continuation: planning is faster. (The heads of an ensemble
            are always normed.)
        ensemble: number of extra predictors of z whose disagreement shows where the model is uncertain (0: none).
        reward: p(r | h, z): "two_hot" over bins, for rewards of any scale; or "gaussian" with one learned sigma and a
            smooth mean, for rewards that are a smooth function of the state and keep to one scale, which is measured
            in the first (random) episodes.
        bins: number of bins of the two-hot distribution of rewards.
        pixel_sigma: standard deviation of frames in 0..1, or its initial value if it is learned.
        pixel_sigma_learned: whether `pixel_sigma` is learned.
        vector_sigma: standard deviation of vectors in units of the first data's spread, or its initial value if
            learned.
        vector_sigma_learned: whether `vector_sigma` is learned, one value per entry.
        vector_symlog: whether vectors are modelled in symlog units, which compresses entries of any scale.
        markov: section of memory=markov.
        mixture: section of prior=mixture.
        vamp: section of prior=vamp.
        flow: section of prior=flow and posterior=flow.
        hierarchical: section of prior=hierarchical.
        flow_matching: section of prior=flow_matching.
        shortcut: section of prior=shortcut.
        jepa: section of kind=jepa.
        pixel_diffusion: section of kind=pixel_diffusion.
        pixel_energy: section of kind=pixel_energy.
        precision: what convolutions and imagination compute in: float32, bfloat16, or "auto", whichever is measured to
            be faster on this processor (`worldvae.system.precision`). Memories and the parameters of distributions are
            float32 in any case.
        compile: whether imagined steps without gradients are compiled: 3 to 10 % faster on a CPU, after half a minute
            of compilation for each new number of dreams. Needs a C++ compiler.
    """

    MOVED: ClassVar[dict[str, str]] = {
        "bfloat16": "give model.precision=auto, float32 or bfloat16",
        "memory_action": "give model.markov.carry=true",
        "components": "give model.mixture.components=N or model.vamp.pseudo_inputs=N",
        "levels": "give model.hierarchical.levels=N",
        "transforms": "give model.flow.transforms=N",
        "sampling": "give model.flow_matching.steps=N",
        "bypass": "give model.perceptron=bypassed, or normed for none",
        "plain": "give model.perceptron=plain, or normed",
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
    shortcut: ShortcutConfig = field(default_factory=ShortcutConfig)
    jepa: JEPAConfig = field(default_factory=JEPAConfig)
    pixel_diffusion: PixelDiffusionConfig = field(default_factory=PixelDiffusionConfig)
    pixel_energy: PixelEnergyConfig = field(default_factory=PixelEnergyConfig)
    precision: str = setting("auto", choices=PRECISIONS)
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("memory_size", "hidden", "depth", "layers", "gaussian", "groups", "classes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} cannot be negative; 0 means the value that size sets")
        for name, table in TABLES.items():
            word = getattr(self, name)
            if word not in table:
                raise ValueError(f"{name}={word} is not accepted: take one of {', '.join(table)}")
            table[word].check(name, word, self)
        self._check_sections()
        self._check_kind_reads()
        if self.ensemble < 0 or self.ensemble == 1:
            raise ValueError(f"ensemble={self.ensemble}: one head cannot disagree; take at least 2, or 0 for none")
        check_bins(self.bins)
        if self.compile and not any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl")):
            raise ValueError("compile=true needs a C++ compiler, such as g++, and there is none; take compile=false")
        for name in ("pixel_sigma", "vector_sigma"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")

    def _check_sections(self) -> None:
        """Refuse settings of a part that is not chosen: they would change nothing."""
        chosen = {self.kind, *(getattr(self, name) for name in TABLES)}
        for part in fields(self):
            section = self.section(part.name)
            if section is not None and part.name not in chosen and section != type(section)():
                tables: dict[str, Collection[str]] = {**TABLES, "kind": READS}
                choices = " or ".join(f"{name}={part.name}" for name, table in tables.items() if part.name in table)
                raise ValueError(f"{part.name} has settings, and no part of that name is chosen: give {choices}")

    def _check_kind_reads(self) -> None:
        """Refuse parts of the VAE that a model of another kind does not have (a memory says only what a task needs)."""
        if self.kind not in READS:
            return
        for part in fields(self):
            if part.name not in VAE_PARTS or part.name in READS[self.kind]:
                continue
            if (given := getattr(self, part.name)) != part.default:
                raise ValueError(
                    f"{part.name}={given} is a part of kind=sequential_vae, and kind={self.kind} has none: leave it out"
                )

    def resolve(self, field: str) -> int:
        """Return a number of this config or, if it is 0, the value that `size` sets for it."""
        names = {"memory_size": "memory"}
        return int(getattr(self, field, 0) or getattr(SIZES[self.size], names.get(field, field)))

    def section(self, part: str) -> Any:
        """Return the section that has the name of this part, or None if there is none."""
        found = getattr(self, part, None)
        return found if is_dataclass(found) else None

    @property
    def perceptron_kind(self) -> PerceptronKind:
        """The setting `perceptron` as the type that networks accept."""
        return cast(PerceptronKind, self.perceptron)


def family_defaults() -> dict[str, Any]:
    """Return the settings that a family of models decides, at their defaults: words and sections."""
    config = WorldModelConfig()
    sections = {f.name: asdict(getattr(config, f.name)) for f in fields(config) if config.section(f.name)}
    return {name: getattr(config, name) for name in ("kind", *TABLES, "context", "frames")} | sections


def choose_precision(config: WorldModelConfig, pixels: tuple[int, int, int] | None, device: torch.device) -> str:
    """Return "float32" or "bfloat16": what `config.precision` says or, if that is "auto", what is faster on `device`.

    Args:
        config: the model's config.
        pixels: (channel, height, width) of the model's frames, or None if it sees none.
        device: the device that the model computes on.
    """
    if config.precision != "auto":
        return config.precision
    hidden, depth = config.resolve("hidden"), config.resolve("depth")
    maps = None if pixels is None else (depth, max(4, pixels[1] // 4), max(4, pixels[2] // 4))
    return faster_precision(device, hidden, maps)


def autocast(config: WorldModelConfig, pixels: tuple[int, int, int] | None, device: torch.device) -> torch.autocast:
    """Return the context in which large matrix products and convolutions run in the precision of `choose_precision`."""
    narrow = choose_precision(config, pixels, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=narrow)


def make_family(config: WorldModelConfig) -> LatentFamily:
    """Return the distribution family of q."""
    size = Size(**{f.name: config.resolve("memory_size" if f.name == "memory" else f.name) for f in fields(Size)})
    return FAMILIES[config.latent].make(size)


def make_memory(config: WorldModelConfig, latent: int, action: int) -> Memory:
    """Return h' = f(h, z, a) for these lengths of z and of the action vector."""
    size, hidden = config.resolve("memory_size"), config.resolve("hidden")
    sizes = MemorySizes(latent, action, size, hidden, config.perceptron_kind)
    return MEMORIES[config.memory].make(sizes, config.section(config.memory))


def make_stages(config: WorldModelConfig) -> OneStage:
    """Return the object that decides which gradients reach which parts."""
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
    """Return the encoder of vectors with this many entries, and p(x | h, z) of them given this many features."""
    hidden, layers, kind = config.resolve("hidden"), config.resolve("layers"), config.perceptron_kind
    encoder: MLP | BypassedMLP = MLP(entries, hidden, layers, kind=kind)
    if kind == "bypassed":  # built after the plain one: the order decides which weights a seed gives
        encoder = BypassedMLP(entries, hidden, layers, hidden)
    trunk = perceptron(features, hidden, layers, entries, zero=True, kind=kind)
    learned = "each" if config.vector_sigma_learned else None
    return encoder, GaussianLikelihood(trunk, (entries,), sigma=config.vector_sigma, learned=learned)


def make_reward(config: WorldModelConfig, features: int) -> TwoHotLikelihood | ScalarGaussianLikelihood:
    """Return p(r | h, z), given features of this length."""
    hidden, layers, kind = config.resolve("hidden"), config.resolve("layers"), config.perceptron_kind
    if config.reward == "gaussian":  # one hidden layer behind a norm fits a parabola badly; two fit it well
        layers = max(2, layers)
        trunk = perceptron(features, hidden, layers, 1, zero=True, kind=kind)
        return ScalarGaussianLikelihood(trunk)
    return TwoHotLikelihood(MLP(features, hidden, layers, config.bins, zero=True, kind=kind))


def make_frames(
    config: WorldModelConfig, pixels: tuple[int, int, int], features: int
) -> tuple[ConvEncoder | StridedEncoder, nn.Module]:
    """Return the encoder from frames to embeddings, and p(x | h, z) given features of this length."""
    depth = config.resolve("depth")
    sizes = FrameSizes(pixels, features, depth, config.pixel_sigma, config.pixel_sigma_learned)
    return frames_of(config.frames, config.trunk, sizes)
