"""What a world model is made of: the config, and the part behind each of its words."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from worldvae.config import setting
from worldvae.distributions import CategoricalFamily, FullGaussianFamily, GaussianFamily, LatentFamily, check_bins
from worldvae.likelihoods import (
    NOISE_FLOOR,
    BernoulliImageLikelihood,
    DiffusionLikelihood,
    DiscretisedLogisticLikelihood,
    GaussianLikelihood,
    HeteroscedasticLikelihood,
    ScalarGaussianLikelihood,
    TwoHotLikelihood,
)
from worldvae.memory import BlockGRUMemory, GRUMemory, MarkovMemory, Memory, TransformerMemory
from worldvae.networks import (
    MLP,
    TRUNKS,
    BypassedMLP,
    ConvDecoder,
    ConvEncoder,
    Denoiser,
    StridedDecoder,
    StridedEncoder,
    perceptron,
)
from worldvae.posteriors import AmortisedPosterior, FlowPosterior, FramePosterior, Posterior, ResidualPosterior
from worldvae.priors import (
    EnergyPrior,
    FlowMatchingPrior,
    FlowPrior,
    HierarchicalPrior,
    MixturePrior,
    ParametricPrior,
    Prior,
    StandardPrior,
    TwoStagePrior,
    VampPrior,
)
from worldvae.system.precision import PRECISIONS, faster_precision

FRAMES = ["gaussian", "heteroscedastic", "logistic", "bernoulli", "diffusion"]
PRIORS = ["own", "standard", "mixture", "vamp", "flow", "hierarchical", "flow_matching", "energy"]


@dataclass(frozen=True)
class Size:
    """What the dial `size` sets."""

    memory: int
    hidden: int
    gaussian: int
    groups: int
    classes: int
    depth: int
    layers: int


SIZES = {
    "tiny": Size(memory=64, hidden=64, gaussian=8, groups=8, classes=8, depth=8, layers=1),
    "small": Size(memory=128, hidden=128, gaussian=16, groups=16, classes=16, depth=16, layers=2),
    "base": Size(memory=512, hidden=512, gaussian=32, groups=32, classes=16, depth=32, layers=2),
    "large": Size(memory=2048, hidden=768, gaussian=64, groups=32, classes=32, depth=48, layers=3),
}


@dataclass(frozen=True)
class WorldModelConfig:
    """Parts of a world model; numbers left at 0 follow from `size`.

    Attributes:
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
        memory_action: whether a Markov h ends with the action itself, for rewards that charge it.
        memory_size: length of h.
        hidden: width of every perceptron.
        depth: channels of the widest maps of a trunk.
        layers: hidden layers of the heads.
        gaussian: length of a Gaussian z.
        groups: categorical variables of a categorical z.
        classes: of each of them.
        components: Gaussians of a mixture, or pseudo-inputs of a VampPrior.
        levels: of a hierarchical prior.
        transforms: coupling layers of a flow.
        sampling: steps from noise to a sample of a flow-matching prior.
        bypass: whether linear maps go around the normalised layers of the perceptrons that vectors, memory, prior,
            posterior and a Gaussian reward pass through. Those layers hardly see how long their input is, which matters
            where magnitudes do (vectors of few entries, about linear dynamics).
        plain: whether those perceptrons and the reward's and the continuation's have ReLU alone in place of norms and
            SiLU, as PlaNet's have: faster to plan with. (The heads of an ensemble keep theirs.)
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
        precision: what convolutions and imagination compute in: float32, bfloat16, or "auto", whichever this processor
            is measured to be faster in (`worldvae.system.precision`). Memories and distributions are float32 in any
            case.
        compile: whether steps that are imagined without gradients are compiled: 3 to 10 % faster on a CPU, after half a
            minute of compilation for each new number of dreams. Needs a C++ compiler.
    """

    MOVED: ClassVar[dict[str, str]] = {"bfloat16": "give model.precision=auto, float32 or bfloat16"}

    size: str = setting("small", choices=list(SIZES))
    trunk: str = setting("patch", choices=["patch", *TRUNKS])
    memory: str = setting("gru", choices=["gru", "block_gru", "markov", "transformer"])
    latent: str = setting("gaussian", choices=["gaussian", "full", "categorical"])
    prior: str = setting("own", choices=PRIORS)
    posterior: str = setting("amortised", choices=["amortised", "flow"])
    context: str = setting("filter", choices=["filter", "smooth"])
    stages: str = setting("one", choices=["one", "two"])
    frames: str = setting("gaussian", choices=FRAMES)
    reward: str = setting("two_hot", choices=["two_hot", "gaussian"])
    memory_action: bool = False
    memory_size: int = 0
    hidden: int = 0
    depth: int = 0
    layers: int = 0
    gaussian: int = 0
    groups: int = 0
    classes: int = 0
    components: int = 8
    levels: int = 2
    transforms: int = 3
    sampling: int = 4
    bypass: bool = False
    plain: bool = False
    ensemble: int = 0
    bins: int = 255
    pixel_sigma: float = 0.25
    pixel_sigma_learned: bool = False
    vector_sigma: float = 1.0
    vector_sigma_learned: bool = True
    vector_symlog: bool = True
    precision: str = setting("auto", choices=PRECISIONS)
    compile: bool = False

    def __post_init__(self) -> None:
        for name in ("memory_size", "hidden", "depth", "layers", "gaussian", "groups", "classes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} cannot be negative; 0 takes what size sets")
        self._check_fit()
        for name in ("components", "levels", "transforms", "sampling"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.ensemble < 0 or self.ensemble == 1:
            raise ValueError(f"ensemble={self.ensemble} cannot disagree: take at least 2 heads, or 0 for none")
        if self.prior == "hierarchical" and self.resolve("gaussian") % self.levels:
            size = self.resolve("gaussian")
            raise ValueError(f"gaussian={size} cannot be split into levels={self.levels}: take a multiple of them")
        if self.frames == "diffusion" and self.pixel_sigma <= NOISE_FLOOR:
            least = f"pixel_sigma={self.pixel_sigma} must be above {NOISE_FLOOR}"
            raise ValueError(f"{least} with frames=diffusion, which leaves so much noise in every frame")
        check_bins(self.bins)
        if self.compile and not any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl")):
            raise ValueError("compile=true needs a C++ compiler, such as g++, and there is none; take compile=false")
        for name in ("pixel_sigma", "vector_sigma"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0 and finite")

    def _check_fit(self) -> None:
        """Refuse parts that do not fit together."""
        if self.latent == "categorical" and (self.prior != "own" or self.posterior != "amortised"):
            wrong = f"prior={self.prior}" if self.prior != "own" else f"posterior={self.posterior}"
            fits = "prior=own and posterior=amortised fit it; all others need latent=gaussian"
            raise ValueError(f"{wrong} is a density over vectors, and latent=categorical is not: {fits}")
        if self.stages == "two" and (self.prior in ("vamp", "hierarchical") or self.posterior != "amortised"):
            wrong = f"posterior={self.posterior}" if self.posterior != "amortised" else f"prior={self.prior}"
            fits = "posterior=amortised and any prior but vamp and hierarchical do"
            raise ValueError(
                f"stages=two has a posterior of frames, apart from its prior: {wrong} does not fit it, {fits}"
            )
        if self.stages == "two" and (self.latent == "categorical" or self.context == "smooth"):
            wrong = "latent=categorical" if self.latent == "categorical" else "context=smooth"
            fits = "latent=gaussian" if self.latent == "categorical" else "context=filter"
            raise ValueError(f"stages=two holds single frames against N(0, I): {wrong} does not fit it, {fits} does")
        if self.prior in ("vamp", "hierarchical") and (self.latent != "gaussian" or self.posterior != "amortised"):
            wrong = f"latent={self.latent}" if self.latent != "gaussian" else f"posterior={self.posterior}"
            why = {
                "vamp": "prior=vamp mixes diagonal Gaussians, which the posterior has to be",
                "hierarchical": "prior=hierarchical brings a posterior of its own, which corrects it level after level",
            }
            raise ValueError(f"{why[self.prior]}: {wrong} does not fit it, latent=gaussian posterior=amortised does")

        if self.memory_action and self.memory != "markov":
            raise ValueError(f"memory_action=true is for memory=markov: memory={self.memory} remembers actions itself")
        other = {"memory": ("gru", "markov"), "prior": ("own",), "posterior": ("amortised",), "stages": ("one",)}
        for name, fit in other.items():
            if self.bypass and getattr(self, name) not in fit:
                wrong = f"{name}={getattr(self, name)}"
                raise ValueError(f"bypass=true has no linear map for {wrong}: {name}={' or '.join(fit)} fits it")
            if self.plain and getattr(self, name) not in fit[:1]:
                wrong = f"{name}={getattr(self, name)}"
                raise ValueError(f"plain=true has no plain perceptron for {wrong}: {name}={fit[0]} fits it")
        if self.plain and self.bypass:
            raise ValueError("plain=true and bypass=true are two kinds of perceptron: take one of them")

    def resolve(self, field: str) -> int:
        """Return a number of this config, or the one that `size` sets."""
        names = {"memory_size": "memory"}
        return int(getattr(self, field, 0) or getattr(SIZES[self.size], names.get(field, field)))


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
    if config.latent == "gaussian":
        return GaussianFamily(config.resolve("gaussian"))
    if config.latent == "full":
        return FullGaussianFamily(config.resolve("gaussian"))
    return CategoricalFamily(config.resolve("groups"), config.resolve("classes"))


def make_memory(config: WorldModelConfig, latent: int, action: int) -> Memory:
    """Return h' = f(h, z, a) for these lengths of z and of the action vector."""
    size, hidden = config.resolve("memory_size"), config.resolve("hidden")
    if config.memory == "transformer":
        return TransformerMemory(latent, action, size)
    if config.memory == "block_gru":
        return BlockGRUMemory(latent, action, size, hidden)
    if config.memory == "markov":
        return MarkovMemory(latent, action, size, hidden, bypass=config.bypass, carry=config.memory_action)
    return GRUMemory(latent, action, size, hidden, bypass=config.bypass, plain=config.plain)


def make_latents(
    config: WorldModelConfig, family: LatentFamily, memory: int, embedding: int
) -> tuple[Prior, Posterior]:
    """Return p(z | h) and q(z | h, e) for these lengths of h and e."""
    latent, hidden = family.latent_size, config.resolve("hidden")
    if config.prior == "hierarchical":
        hierarchy = HierarchicalPrior(memory, latent, hidden, config.levels)
        return hierarchy, ResidualPosterior(hierarchy, memory, embedding, hidden)
    if config.prior == "vamp":
        shared = AmortisedPosterior(memory, embedding, family, hidden)
        return VampPrior(shared, memory, embedding, hidden, config.components), shared
    priors: dict[str, Callable[[], Prior]] = {
        "own": lambda: ParametricPrior(memory, family, hidden, bypass=config.bypass, plain=config.plain),
        "standard": lambda: StandardPrior(latent),
        "mixture": lambda: MixturePrior(memory, latent, hidden, config.components),
        "flow": lambda: FlowPrior(memory, latent, hidden, config.transforms),
        "flow_matching": lambda: FlowMatchingPrior(memory, latent, hidden, config.sampling, base="gaussian"),
        "energy": lambda: EnergyPrior(memory, latent, hidden),
    }
    prior = priors[config.prior]()
    if config.stages == "two":
        return TwoStagePrior(prior), FramePosterior(embedding, family, hidden)
    if config.posterior == "flow":
        return prior, FlowPosterior(memory, embedding, latent, hidden, config.transforms)
    posterior = AmortisedPosterior(memory, embedding, family, hidden, bypass=config.bypass, plain=config.plain)
    return prior, posterior


def make_vector(config: WorldModelConfig, entries: int, features: int) -> tuple[MLP | BypassedMLP, GaussianLikelihood]:
    """Return the perceptrons from vectors of so many entries to embeddings, and p(x | h, z) from such features."""
    hidden, layers = config.resolve("hidden"), config.resolve("layers")
    encoder: MLP | BypassedMLP = MLP(entries, hidden, layers, plain=config.plain)
    if config.bypass:
        encoder = BypassedMLP(entries, hidden, layers, hidden)
    trunk = perceptron(features, hidden, layers, entries, zero=True, bypass=config.bypass, plain=config.plain)
    learned = "each" if config.vector_sigma_learned else None
    return encoder, GaussianLikelihood(trunk, (entries,), sigma=config.vector_sigma, learned=learned)


def make_reward(config: WorldModelConfig, features: int) -> TwoHotLikelihood | ScalarGaussianLikelihood:
    """Return p(r | h, z) from such features."""
    hidden, layers = config.resolve("hidden"), config.resolve("layers")
    if config.reward == "gaussian":  # one hidden layer behind a norm draws no good parabola: two do
        layers = max(2, layers)
        trunk = perceptron(features, hidden, layers, 1, zero=True, bypass=config.bypass, plain=config.plain)
        return ScalarGaussianLikelihood(trunk)
    return TwoHotLikelihood(MLP(features, hidden, layers, config.bins, zero=True, plain=config.plain))


def make_frames(
    config: WorldModelConfig, pixels: tuple[int, int, int], features: int
) -> tuple[ConvEncoder | StridedEncoder, nn.Module]:
    """Return the convolutions from frames to embeddings, and p(x | h, z) from features of this length."""
    two = config.frames in ("heteroscedastic", "logistic")  # their trunks paint a location and a scale
    painted = (pixels[0] * (2 if two else 1), *pixels[1:])
    depth = config.resolve("depth")
    encoder: ConvEncoder | StridedEncoder
    trunk: ConvDecoder | StridedDecoder
    if config.trunk == "patch":
        encoder, trunk = ConvEncoder(pixels, depth), ConvDecoder(features, painted, depth)
    else:
        shape = TRUNKS[config.trunk]
        encoder, trunk = StridedEncoder(pixels, depth, shape), StridedDecoder(features, painted, depth, shape)
    sigma = config.pixel_sigma
    learned = "shared" if config.pixel_sigma_learned else None
    if config.frames == "gaussian":
        return encoder, GaussianLikelihood(trunk, pixels, sigma=sigma, learned=learned, offset=0.5)
    if config.frames == "heteroscedastic":
        return encoder, HeteroscedasticLikelihood(trunk, pixels, sigma=sigma)
    if config.frames == "diffusion":
        denoiser = Denoiser(features, pixels, max(32, 2 * depth))
        # It learns on a quarter of the frames that are decoded: on all of them, an update would take twice as long.
        return encoder, DiffusionLikelihood(trunk, denoiser, pixels, sigma=sigma, learned=learned, share=0.25)
    if config.frames == "logistic":
        return encoder, DiscretisedLogisticLikelihood(trunk, pixels, scale=sigma * math.sqrt(3) / math.pi)
    return encoder, BernoulliImageLikelihood(trunk, pixels)
