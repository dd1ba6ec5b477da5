"""Recovery likelihood: energies of noisy frames, learned from Langevin chains that begin at still noisier ones.

At the levels sigma_0 < ... < sigma_T, x_i has the noise sigma_i, and x_{i+1} is x_i with further noise of standard
deviation tau_i. Each conditional p(x_i | x_{i+1}) is proportional to exp(-E(x_i; sigma_i) - |x_i - x_{i+1}|^2 / 2
tau_i^2): it is nearly a Gaussian, so that short chains reach it, where those of exp(-E) alone would not.

Reference: Gao et al. 2021, "Learning Energy-Based Models by Diffusion Recovery Likelihood", sections 3.2 and 3.3.
"""

import math
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.models.kind_sections import ContrastiveConfig
from worldvae.objectives.langevin import langevin

Kicks = Callable[[int], Iterable[Tensor]]
"""The kicks of the chain with this number."""


class RecoveryChains:
    """The noise levels, and the chains between them.

    Args:
        config: numbers of levels, steps and step size.
        sigma_max: noise at the last level.

    Attributes:
        sigmas: the T + 1 levels, in equal ratios.
        taus: the T standard deviations of the noise between neighbours.
    """

    def __init__(self, config: ContrastiveConfig, sigma_max: float) -> None:
        self.config, count = config, config.levels
        ratio = sigma_max / config.sigma_min
        self.sigmas = [config.sigma_min * ratio ** (i / count) for i in range(count + 1)]
        self.taus = [math.sqrt(self.sigmas[i + 1] ** 2 - self.sigmas[i] ** 2) for i in range(count)]

    def chain(
        self,
        gradient: Callable[[Tensor], Tensor],
        noisier: Float[Tensor, "batch entry"],
        start: Float[Tensor, "batch entry"],
        tau: Float[Tensor, "batch 1"],
        kicks: Iterable[Tensor],
    ) -> Float[Tensor, "batch entry"]:
        """Return the end of the chain that draws x_i, given x_{i+1}.

        Args:
            gradient: of E(x; sigma_i).
            noisier: x_{i+1}.
            start: where the chain begins.
            tau: standard deviation of the noise between them, for each row.
            kicks: its standard normal kicks.
        """
        # In units of tau all rows have the same step size.
        end = langevin(lambda v: tau * gradient(tau * v) + v - noisier / tau, start / tau, self.config.step**2, kicks)
        out: Tensor = tau * end
        return out

    def descend(
        self,
        gradient: Callable[[Tensor, float], Tensor],
        noise: Float[Tensor, "batch entry"],
        kicks: Kicks,
    ) -> Float[Tensor, "batch entry"]:
        """Return x_0, drawn level by level from x_T = sigma_T times the noise, and denoised: x_0 - sigma_0^2 grad E.

        Args:
            gradient: of E(x; sigma), for x and sigma.
            noise: standard normal.
            kicks: of the chain to each level.
        """
        x = self.sigmas[-1] * noise
        for i in reversed(range(self.config.levels)):
            sigma, tau = self.sigmas[i], torch.full_like(x[:, :1], self.taus[i])

            def at_level(v: Tensor, sigma: float = sigma) -> Tensor:
                return gradient(v, sigma)

            x = self.chain(at_level, x, x, tau, kicks(i))
        found: Tensor = x - self.sigmas[0] ** 2 * gradient(x, self.sigmas[0])
        return found
