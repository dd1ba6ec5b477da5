"""A prior with a density known up to a constant: an energy that reweights a Gaussian."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.networks.frozen import frozen
from worldvae.priors.base import Base, BaseKind
from worldvae.priors.prior import Prior
from worldvae.priors.random_stream import RandomStream

MAX_ENERGY = 5.0
"""Nats by which E may raise or lower the Gaussian's log-density. Without a limit E grows where the chain is inaccurate:
on two blobs, 300 updates of Adam at 0.003 with 20 steps of 0.1 end 248 nats below a single Gaussian; with it, 0.58
above."""


class EnergyPrior(Prior):
    """p(z | h) = exp(-E(z, h)) N(z; m(h), diag s(h)^2) / Z(h), sampled by short-run Langevin dynamics from there.

    E is a perceptron with outputs limited to -5 .. 5. The gradient of -log p is the contrastive one, dE(z+) - dE(z-)
    for z+ from q and z- from the chain. Both the negatives z- and the estimate of log Z in `kl` are drawn from the
    prior's own stream `draws`. E is initially 0, so that p is the Gaussian, and the chain leaves that Gaussian
    invariant: in u = (z - m) / s

        u' = ((2 - d) u - 2 d grad_u E + sqrt(8 d) noise) / (2 + d)        (d the step size)

    A long chain of small steps samples p; a short one samples something close to it, whose density is unknown.

    Args:
        memory: length of h.
        latent: length of z.
        hidden: width of the two hidden layers of E.
        steps: Langevin steps per sample; each costs a gradient of E.
        step_size: d above, in units of the Gaussian's variance. E learns to compensate for the chain's discretisation
            error: on two blobs 0.1 costs 0.1 to 0.3 nats against 0.05.
        base: "gaussian" learns m and s; "standard" is N(0, I). Default: gaussian if the memory has a length above 0.
        normaliser_samples: draws from the Gaussian per estimate of log Z.

    Raises:
        ValueError: If a number of steps or samples is below 1, or the step size is not in (0, 2).

    Reference: Pang et al. 2020, "Learning Latent Space Energy-Based Prior Model", sections 2 and 3; Cotter et al.
    2013, "MCMC Methods for Functions", section 4, for the chain.
    """

    kind = "unnormalised"

    def __init__(
        self,
        memory: int,
        latent: int,
        hidden: int,
        steps: int = 30,
        step_size: float = 0.05,
        base: BaseKind | None = None,
        normaliser_samples: int = 16,
    ) -> None:
        super().__init__(latent)
        if steps < 1 or normaliser_samples < 1:
            raise ValueError(f"steps={steps} and normaliser_samples={normaliser_samples} must be at least 1")
        if not 0 < step_size < 2:
            raise ValueError(f"step_size={step_size} must be above 0 and below 2, beyond which the chain oscillates")
        self.steps, self.step_size, self.normaliser_samples = steps, step_size, normaliser_samples
        self.base = Base(base or ("gaussian" if memory else "standard"), memory, latent, hidden)
        # No layer norms, which would hide how far z is from the origin, and no final bias, which would only be part of
        # log Z.
        last = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(last.weight)
        self.net = nn.Sequential(
            nn.Linear(latent + memory, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
        )
        self.draws = RandomStream()

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"latent={self.latent_size}, steps={self.steps}, step_size={self.step_size}"

    def energy(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return E(z, h)."""
        raw: Tensor = self.net(torch.cat([latent, memory], dim=-1)).float()
        return MAX_ENERGY * torch.tanh(raw.squeeze(-1) / MAX_ENERGY)

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the start of the chain and the noise of all its steps."""
        return torch.randn(*shape, self.latent_size * (self.steps + 1), device=device, generator=generator)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return the end of the chain; gradients pass through all its steps."""
        gaussian, d = self.base(memory), self.step_size
        mean, std = gaussian.mean, gaussian.stddev
        u, *kicks = noise.chunk(self.steps + 1, dim=-1)
        for kick in kicks:
            force = self._gradient(u, mean, std, memory)
            u = ((2 - d) * u - 2 * d * force + math.sqrt(8 * d) * kick) / (2 + d)
        out: Tensor = mean + std * u
        return out

    def _gradient(self, u: Tensor, mean: Tensor, std: Tensor, memory: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled()
        with torch.enable_grad():
            point = u if u.requires_grad else u.detach().requires_grad_()
            energy = self.energy(mean + std * point, memory).sum()
            gradient: Tensor = torch.autograd.grad(energy, point, create_graph=differentiable)[0]
        return gradient

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the end of the chain that starts at the Gaussian's mean and has no noise: it descends to a mode."""
        size = self.latent_size * (self.steps + 1)
        return self.step(memory, memory.new_zeros(*memory.shape[:-1], size, dtype=torch.float32))

    def log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return log p(z | h) + log Z(h)."""
        out: Tensor = self.base(memory).log_prob(latent)
        return out - self.energy(latent, memory)

    @torch.no_grad()
    def log_normaliser(
        self, memory: Float[Tensor, "*batch memory"], generator: torch.Generator
    ) -> Float[Tensor, "*batch"]:
        """Estimate log Z(h) = log E_gaussian[exp(-E)]; too low on average, and the more so the more E varies."""
        gaussian, count = self.base(memory), self.normaliser_samples
        shape = (count, *memory.shape[:-1], self.latent_size)
        noise = torch.randn(shape, device=memory.device, generator=generator)
        energy = self.energy(gaussian.mean + gaussian.stddev * noise, memory.expand(count, *memory.shape))
        return torch.logsumexp(-energy, dim=0) - math.log(count)

    def _contrast(self, memory: Tensor, generator: torch.Generator) -> Tensor:
        """Return zeros whose gradient estimates that of log Z."""
        with torch.no_grad():
            negative = self.step(memory, self.noise(tuple(memory.shape[:-1]), memory.device, generator))
        out = self.log_prob(negative, memory)
        return out - out.detach()

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return KL(q || N(m, s^2)) + E(z) + log Z; its value estimates log Z, its gradient is contrastive."""
        generator = self.draws.generator(memory.device)
        normaliser = self.log_normaliser(memory, generator) + self._contrast(memory, generator)
        return self.base.kl(q, latent, memory) + self.energy(latent, memory) + normaliser

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return both KLs of `Prior.balanced_kl`, computed from the same draws."""
        generator = self.draws.generator(memory.device)
        log_z = self.log_normaliser(memory, generator)
        dynamics, representation = self.base.balanced_kl(q, latent, memory)
        dynamics = dynamics + self.energy(latent.detach(), memory) + self._contrast(memory, generator)
        with frozen(self.learnt()):
            representation = representation + self.energy(latent, memory.detach())
        return dynamics + log_z, representation + log_z
