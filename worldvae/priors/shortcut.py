"""Shortcut forcing: a latent diffusion that knows how long its steps are, and so needs few of them."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from worldvae.networks import MLP
from worldvae.networks.frozen import frozen
from worldvae.priors.prior import Prior, kl_or_estimate
from worldvae.priors.random_stream import RandomStream
from worldvae.priors.running_moments import RunningMoments
from worldvae.priors.transport import transported_log_prob

HARMONICS = 4
"""Sines and cosines of the signal level that the network reads."""


@dataclass(frozen=True)
class ShortcutConfig:
    """Settings of the prior `shortcut`.

    Attributes:
        steps: network calls from noise to a sample of z; a power of two.
        grid: signal levels in training, and the largest number of steps; a power of two.
        signal: in a dream, the memory reads each z with this share of signal, and noise for the rest (1: no noise).
        lowest: in training, it reads each z with a random share of signal, uniform between this and 1 (1: no noise).
    """

    steps: int = 4
    grid: int = 64
    signal: float = 0.9
    lowest: float = 0.5

    def __post_init__(self) -> None:
        for name in ("steps", "grid"):
            given = getattr(self, name)
            if given < 1 or given & (given - 1):
                raise ValueError(f"{name}={given} is not a power of two: take 1, 2, 4, ...")
        if self.grid < 2 or self.steps > self.grid:
            raise ValueError(
                f"steps={self.steps} with grid={self.grid}: take grid=2 or more, and no more steps than it"
            )
        for name in ("signal", "lowest"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is a share of signal: take a number from 0 to 1")


class ShortcutPrior(Prior):
    """p(z | h): noise that is carried to z in 1, 2, 4, ... steps, by a denoiser that also reads the length of a step.

    u is z standardised by running moments: its scale against the noise decides what is learned. Between noise e and u
    lies u_t = (1 - t) e + t u, with t the signal level, one of `grid`. A network F predicts the clean u from u_t, t,
    the length d = 2^k / grid of the step, and h:

        u^ = t / m u_t + (1 - t) / sqrt(m) F,   m = t^2 + (1 - t)^2     (F = 0: the best prediction for u from N(0, I))

    and a step is u_{t+d} = u_t + d v, v = (u^ - u_t) / (1 - t). The loss, weighted by 0.9 t + 0.1, is |u^ - u|^2 at the
    shortest d, plus at a random longer one (1 - t)^2 |v - v'|^2 where v' is the mean velocity of two steps of d / 2,
    without gradient. It is divided by the running mean of its first term and multiplied by latent / 2, so that h learns
    as it does from the log-density of a Gaussian.

    In training the memory reads z with noise (`corrupt`), so that in a dream it forgives the errors of earlier steps
    (`recall`); it is not told the level.

    `log_prob` is a draw of the variational bound of a diffusion with this denoiser at the shortest d, run up to the
    signal 1 - 1 / grid and finished by a Gaussian. With r = ((1 - t) u - t e) / sqrt(m), at which u^ = u,

        -log p(u | h) <= -log N(u; 0, I) + (Y + 1) / 2 E[|F|^2 - 2 F . r],   m / (1 - t)^2 = exp(min(Y, (Y + 1) U))

    for U uniform in (0, 1) and Y the largest value of the logarithm; it is exact for F = 0. `exact_log_prob` is the
    density of the flow with infinitely short steps. `step`, which takes few, samples from neither exactly. F is trained
    by its own loss and not by the bound: the terms of `balanced_kl` have the value of the bound.

    Args:
        memory: length of h.
        latent: length of z.
        hidden: width of the hidden layers of F.
        config: steps, grid and noise.
        layers: number of hidden layers of F.

    Reference: Hafner et al. 2025, "Training Agents Inside of Scalable World Models" (Dreamer 4), equations 4, 7 and 8;
    Frans et al. 2025, "One Step Diffusion via Shortcut Models"; Chen et al. 2024, "Diffusion Forcing"; Karras et al.
    2022, "Elucidating the Design Space of Diffusion-Based Generative Models", for the parts of u^; Kingma et al. 2021,
    "Variational Diffusion Models", for the bound.
    """

    kind = "lower_bound"

    def __init__(
        self, memory: int, latent: int, hidden: int, config: ShortcutConfig | None = None, layers: int = 2
    ) -> None:
        super().__init__(latent)
        self.config = config = config or ShortcutConfig()
        self.steps = config.steps
        self.levels = config.grid.bit_length()  # lengths of a step: 1 / grid, 2 / grid, ..., 1
        self.corrupts = min(config.signal, config.lowest) < 1
        self.net = MLP(latent + 2 * HARMONICS + self.levels + memory, hidden, layers, latent, zero=True)
        self.moments, self.scale = RunningMoments(latent), RunningMoments(1)
        self.draws = RandomStream()

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"latent={self.latent_size}, {self.config}"

    def field(
        self,
        u: Float[Tensor, "*batch latent"],
        signal: Float[Tensor, "*batch"],
        level: Int[Tensor, "*batch"],
        memory: Float[Tensor, "*batch memory"],
    ) -> Float[Tensor, "*batch latent"]:
        """Return F(u_t, t, d, h) for d = 2^level / grid."""
        t = signal.unsqueeze(-1)
        phases = t * (math.pi / 2 * torch.arange(1, HARMONICS + 1, device=t.device))
        lengths = torch.nn.functional.one_hot(level, self.levels).to(t.dtype)
        inputs = torch.cat([u / _spread(t), phases.sin(), phases.cos(), lengths, memory], dim=-1)
        out: Tensor = self.net(inputs).float()
        return out

    def velocity(
        self,
        u: Float[Tensor, "*batch latent"],
        signal: Float[Tensor, "*batch"],
        level: Int[Tensor, "*batch"],
        memory: Float[Tensor, "*batch memory"],
    ) -> Float[Tensor, "*batch latent"]:
        """Return v = (u^ - u_t) / (1 - t), written so that it is finite at t = 1, too."""
        t = signal.unsqueeze(-1)
        spread = _spread(t)
        return ((2 * t - 1) / spread * u + self.field(u, signal, level, memory)) / spread

    def integrate(
        self, noise: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"], steps: int
    ) -> Float[Tensor, "*batch latent"]:
        """Return u after this many equal steps from noise; a power of two, at most `grid`."""
        u, batch = noise.float(), noise.shape[:-1]
        level = torch.full(batch, self.levels - steps.bit_length(), device=u.device)
        for k in range(steps):
            u = u + self.velocity(u, u.new_full(batch, k / steps), level, memory) / steps
        return u

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the noise that `step` carries to z and, unless `signal` is 1, that which `recall` adds to the last z."""
        size = self.latent_size * (2 if self.config.signal < 1 else 1)
        return torch.randn(*shape, size, device=device, generator=generator)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return z at the end of the steps that start at the noise."""
        u = self.integrate(noise[..., : self.latent_size], memory, self.steps)
        return torch.addcmul(self.moments.mean, self.moments.stddev, u)

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return z at the end of the steps that start at the noise 0."""
        return self.step(memory, memory.new_zeros(*memory.shape[:-1], self.latent_size, dtype=torch.float32))

    def history_noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape corruption"]:
        """Draw a place between `lowest` and 1, and noise of the length of z."""
        place = torch.rand(*shape, 1, device=device, generator=generator)
        return torch.cat([place, torch.randn(*shape, self.latent_size, device=device, generator=generator)], dim=-1)

    def corrupt(
        self, latent: Float[Tensor, "*batch latent"], noise: Float[Tensor, "*batch corruption"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return z at the signal level that the noise says."""
        lowest = self.config.lowest
        return self._mixed(latent, lowest + (1 - lowest) * noise[..., :1], noise[..., 1:])

    def recall(
        self, latent: Float[Tensor, "*batch latent"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return z at the level `signal`; z itself if that is 1."""
        extra = noise[..., self.latent_size :]
        return self._mixed(latent, self.config.signal, extra) if extra.shape[-1] else latent

    def _mixed(self, latent: Tensor, signal: Tensor | float, noise: Tensor) -> Tensor:
        out: Tensor = signal * latent + (1 - signal) * (self.moments.mean + self.moments.stddev * noise)
        return out

    def _gaussian(self) -> Distribution:
        """Return N(0, I) of u, as a distribution of z."""
        return Independent(Normal(self.moments.mean, self.moments.stddev, validate_args=False), 1, validate_args=False)

    def standardised(self, latent: Float[Tensor, "*batch latent"]) -> Float[Tensor, "*batch latent"]:
        """Return u of z."""
        return (latent - self.moments.mean) / self.moments.stddev

    def log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return an unbiased draw of the lower bound on log p(z | h)."""
        generator = self.draws.generator(memory.device)
        excess = self._excess(self.standardised(latent), memory, *self._draw(memory, generator))
        out: Tensor = self._gaussian().log_prob(latent) - excess
        return out

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return an unbiased draw of an upper bound on KL(q || p); the part of N(0, I) is in closed form."""
        generator = self.draws.generator(memory.device)
        excess = self._excess(self.standardised(latent), memory, *self._draw(memory, generator))
        return kl_or_estimate(q, self._gaussian(), latent) + excess

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return both KLs of `Prior.balanced_kl` by the same draws; the first has the gradient of the loss of F.

        Where gradients are enabled, and so in training only, the running moments are updated first.
        """
        if torch.is_grad_enabled():
            self.moments.update(latent)
        generator = self.draws.generator(memory.device)
        u = self.standardised(latent)
        with frozen(self.learnt()):
            excess = self._excess(u, memory.detach(), *self._draw(memory, generator))
        representation = kl_or_estimate(q, self._gaussian(), latent) + excess
        loss = self.loss(u.detach(), memory, generator)
        return representation.detach() + (loss - loss.detach()), representation

    def loss(
        self,
        u: Float[Tensor, "*batch latent"],
        memory: Float[Tensor, "*batch memory"],
        generator: torch.Generator,
    ) -> Float[Tensor, "*batch"]:
        """Return the loss of F for standardised latents: flow and consistency, over the running mean of the flow's."""
        flow, consistency = self.flow_loss(u, memory, generator), self.consistency_loss(u, memory, generator)
        if torch.is_grad_enabled():
            self.scale.update(flow.detach().unsqueeze(-1))
        mean = torch.where(self.scale.weight > 0, self.scale.mean[0], 1.0).clamp(min=1e-6 * self.latent_size)
        return self.latent_size / 2 / mean * (flow + consistency)

    def flow_loss(
        self,
        u: Float[Tensor, "*batch latent"],
        memory: Float[Tensor, "*batch memory"],
        generator: torch.Generator,
    ) -> Float[Tensor, "*batch"]:
        """Return (0.9 t + 0.1) |u^ - u|^2 at the shortest step and a random t of each element."""
        place, noise = self._draw(memory, generator)
        signal = (place * self.config.grid).floor().clamp(max=self.config.grid - 1) / self.config.grid
        t = signal.unsqueeze(-1)
        missed = self.field(t * u + (1 - t) * noise, signal, self._shortest(signal), memory) - _target(u, noise, t)
        error = ((1 - t) / _spread(t) * missed).square().sum(-1)
        return (0.9 * signal + 0.1) * error

    def consistency_loss(
        self,
        u: Float[Tensor, "*batch latent"],
        memory: Float[Tensor, "*batch memory"],
        generator: torch.Generator,
    ) -> Float[Tensor, "*batch"]:
        """Return (0.9 t + 0.1) (1 - t)^2 |v - v'|^2 at a random longer step, at a random t where one begins."""
        place, noise = self._draw(memory, generator)
        batch, device = memory.shape[:-1], memory.device
        level = torch.randint(1, self.levels, batch, device=device, generator=generator)
        steps = 2.0 ** (self.levels - 1 - level)  # of this length, from noise to u
        signal = (place * steps).floor().minimum(steps - 1) / steps
        t = signal.unsqueeze(-1)
        start = t * u + (1 - t) * noise
        target = self.two_halves(start, signal, level, memory)
        error = (self.velocity(start, signal, level, memory) - target).square().sum(-1)
        return (0.9 * signal + 0.1) * (1 - signal).square() * error

    @torch.no_grad()
    def two_halves(
        self,
        u: Float[Tensor, "*batch latent"],
        signal: Float[Tensor, "*batch"],
        level: Int[Tensor, "*batch"],
        memory: Float[Tensor, "*batch memory"],
    ) -> Float[Tensor, "*batch latent"]:
        """Return the mean velocity of two steps of half the length that `level` says, from u_t."""
        half = 2.0 ** (level - self.levels)
        first = self.velocity(u, signal, level - 1, memory)
        second = self.velocity(u + half.unsqueeze(-1) * first, signal + half, level - 1, memory)
        return (first + second) / 2

    def _shortest(self, signal: Tensor) -> Tensor:
        return torch.zeros_like(signal, dtype=torch.int64)

    def _draw(self, memory: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a place in (0, 1) and noise for every element; places are stratified, in random order."""
        device, batch = memory.device, memory.shape[:-1]
        count = math.prod(batch)
        place = torch.randperm(count, device=device, generator=generator)
        uniform = (place + torch.rand(count, device=device, generator=generator)) / max(count, 1)
        return uniform.reshape(batch), torch.randn(*batch, self.latent_size, device=device, generator=generator)

    def _excess(self, u: Tensor, memory: Tensor, place: Tensor, noise: Tensor) -> Tensor:
        """Return by how much the bound on -log p(u | h) exceeds -log N(u; 0, I), at one signal level per element."""
        top = math.log1p((self.config.grid - 1) ** 2)
        ratio = torch.expm1(((top + 1) * place).clamp(max=top)).sqrt()  # of signal to noise
        signal = ratio / (1 + ratio)
        t = signal.unsqueeze(-1)
        field = self.field(t * u + (1 - t) * noise, signal, self._shortest(signal), memory)
        out: Tensor = (top + 1) / 2 * (field.square() - 2 * field * _target(u, noise, t)).sum(-1)
        return out

    def exact_log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"], steps: int = 128
    ) -> Float[Tensor, "*batch"]:
        """Return log p(z | h) of the flow at the shortest d, exact up to the solver's error (kind: "estimate")."""

        def velocity(u: Tensor, time: float) -> Tensor:
            signal = u.new_full(u.shape[:-1], time)
            return self.velocity(u, signal, self._shortest(signal), memory)

        density = transported_log_prob(velocity, self.standardised(latent), 1.0, 0.0, steps)
        return density - self.moments.stddev.log().sum()


def _spread(t: Tensor) -> Tensor:
    """Return the standard deviation of u_t for u from N(0, I)."""
    return (t.square() + (1 - t).square()).sqrt()


def _target(u: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Return the F at which u^ = u."""
    return ((1 - t) * u - t * noise) / _spread(t)
