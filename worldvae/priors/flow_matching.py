"""A latent diffusion model as a prior: noise is transported to z along a learned velocity."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from worldvae.networks import MLP
from worldvae.networks.frozen import frozen
from worldvae.priors.base import Base, BaseKind
from worldvae.priors.prior import Prior
from worldvae.priors.random_stream import RandomStream
from worldvae.priors.transport import transported_log_prob

Solver = Literal["euler", "heun"]
HARMONICS = 4


@dataclass(frozen=True)
class FlowMatchingConfig:
    """Settings of the prior `flow_matching`.

    Attributes:
        steps: solver steps from noise to a sample.
    """

    steps: int = 4

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: the flow needs at least 1 step")


class FlowMatchingPrior(Prior):
    """p(z | h): N(0, I) transported along the velocity v(z_a, a, h) from the angle a = pi/2 (noise) to a = 0 (z).

    z_a = cos(a) z + sin(a) e lies between z and the noise e; the best v is E[dz_a/da | z_a] = E[cos(a) e - sin(a) z].
    F is learned, and v = sin(a) F(z_a, a, h), because v vanishes at a = 0. The variational bound of the diffusion whose
    drift follows from v then has no singularities, and it is exact for F = 0 (p = N(0, I), where training starts):

        -log p(z | h) <= -log N(z; 0, I) + E_{a, e} (pi/2) cos(a) [sin(a) |F|^2 - 2 F . (cos(a) e - sin(a) z)]

    with a uniform in (0, pi/2); equality at the best v. With `base="gaussian"` all this applies to (z - m(h)) / s(h).
    a and e are drawn from the prior's own stream `draws`, one of each per element; a is stratified over the batch.
    `log_prob` is a draw of the bound; `exact_log_prob` is the density of the flow that `step` integrates in a few
    steps. The two belong to the same distribution only if v is the best one.

    Args:
        memory: length of h.
        latent: length of z.
        hidden: width of the hidden layers of F.
        steps: solver steps per sample; each evaluates F twice ("heun") or once ("euler").
        layers: number of hidden layers of F.
        base: "gaussian" learns m and s; "standard" is N(0, I).
        solver: solver of the flow: "heun" or "euler".

    Raises:
        ValueError: If there is no step, or no such solver.

    Reference: Kingma et al. 2021, "Variational Diffusion Models", section 4; Vahdat et al. 2021, "Score-based
    Generative Modeling in Latent Space", sections 3.1 and 3.2; Salimans & Ho 2022, appendix D, for v.
    """

    kind = "lower_bound"

    def __init__(
        self,
        memory: int,
        latent: int,
        hidden: int,
        steps: int = 4,
        layers: int = 2,
        base: BaseKind = "standard",
        solver: Solver = "heun",
    ) -> None:
        super().__init__(latent)
        if steps < 1:
            raise ValueError(f"steps={steps}: the flow needs at least 1 step")
        if solver not in ("euler", "heun"):
            raise ValueError(f"solver={solver!r} is not a solver: take 'euler' or 'heun'")
        self.steps, self.solver = steps, solver
        self.base = Base(base, memory, latent, hidden)
        self.net = MLP(latent + 2 * HARMONICS + memory, hidden, layers, latent, zero=True)
        self.draws = RandomStream()

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"latent={self.latent_size}, steps={self.steps}, solver={self.solver}"

    def field(
        self,
        latent: Float[Tensor, "*batch latent"],
        angle: Float[Tensor, "*batch"],
        memory: Float[Tensor, "*batch memory"],
    ) -> Float[Tensor, "*batch latent"]:
        """Return F(z_a, a, h), in the coordinates of the base."""
        phases = angle.unsqueeze(-1) * torch.arange(1, HARMONICS + 1, device=angle.device)
        out: Tensor = self.net(torch.cat([latent, phases.sin(), phases.cos(), memory], dim=-1)).float()
        return out

    def _velocity(self, latent: Tensor, angle: float, memory: Tensor) -> Tensor:
        angles = latent.new_full(latent.shape[:-1], angle)
        out: Tensor = math.sin(angle) * self.field(latent, angles, memory)
        return out

    def integrate(
        self, noise: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"], steps: int, solver: Solver
    ) -> Float[Tensor, "*batch latent"]:
        """Integrate the velocity from noise at pi/2 to 0, in the coordinates of the base."""
        u, stride = noise, math.pi / 2 / steps
        for k in range(steps, 0, -1):
            slope = self._velocity(u, k * stride, memory)
            if solver == "heun" and k > 1:
                slope = (slope + self._velocity(u - stride * slope, (k - 1) * stride, memory)) / 2
            elif solver == "heun":
                slope = slope / 2  # the velocity at 0 is 0
            u = u - stride * slope
        return u

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return the end of the flow that starts at the noise, in `steps` solver steps."""
        gaussian = self.base(memory)
        u = self.integrate(noise.float(), memory, self.steps, self.solver)
        return torch.addcmul(gaussian.mean, gaussian.stddev, u)

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the end of the flow that starts at the noise 0."""
        zeros = memory.new_zeros(*memory.shape[:-1], self.latent_size, dtype=torch.float32)
        return self.step(memory, zeros)

    def _draw(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Draw angle and noise for every element; angles are stratified over (0, pi/2), in random order."""
        device, batch = memory.device, memory.shape[:-1]
        generator, count = self.draws.generator(device), math.prod(batch)
        place = torch.randperm(count, device=device, generator=generator)
        uniform = (place + torch.rand(count, device=device, generator=generator)) / max(count, 1)
        noise = torch.randn(*batch, self.latent_size, device=device, generator=generator)
        return (uniform * (math.pi / 2)).reshape(batch), noise

    def _excess(self, latent: Tensor, memory: Tensor, angle: Tensor, noise: Tensor) -> Tensor:
        """Return by how much the bound on -log p(z | h) exceeds -log p of the base."""
        gaussian = self.base(memory)
        u, sin, cos = (latent - gaussian.mean) / gaussian.stddev, angle.sin(), angle.cos()
        s, c = sin.unsqueeze(-1), cos.unsqueeze(-1)
        field = self.field(c * u + s * noise, angle, memory)
        velocity = c * noise - s * u
        out: Tensor = math.pi / 2 * cos * (sin * field.square().sum(-1) - 2 * (field * velocity).sum(-1))
        return out

    def log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return an unbiased draw of the lower bound on log p(z | h)."""
        out: Tensor = self.base(memory).log_prob(latent)
        return out - self._excess(latent, memory, *self._draw(memory))

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return an unbiased draw of an upper bound on KL(q || p); the base's part is in closed form."""
        return self.base.kl(q, latent, memory) + self._excess(latent, memory, *self._draw(memory))

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return both KLs of `Prior.balanced_kl`, computed from the same draws."""
        angle, noise = self._draw(memory)
        dynamics, representation = self.base.balanced_kl(q, latent, memory)
        dynamics = dynamics + self._excess(latent.detach(), memory, angle, noise)
        with frozen(self.learnt()):
            representation = representation + self._excess(latent, memory.detach(), angle, noise)
        return dynamics, representation

    def exact_log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"], steps: int = 128
    ) -> Float[Tensor, "*batch"]:
        """Return log p(z | h) of the flow itself, exact up to the solver's discretisation error (kind: "estimate").

        The change of variables by `transported_log_prob`, which suits short latents only.
        """
        gaussian = self.base(memory)
        u = (latent - gaussian.mean) / gaussian.stddev
        density: Tensor = transported_log_prob(
            lambda x, angle: self._velocity(x, angle, memory), u, 0.0, math.pi / 2, steps
        )
        out: Tensor = density - gaussian.stddev.log().sum(-1)
        return out
