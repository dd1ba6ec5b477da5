"""An energy of the next frame: a world model whose density is known up to a constant.

    E(x; sigma) = (1 - c_skip) / (2 sigma^2) |x|^2 - c_out / (sigma^2 c_in) G(u; sigma),    G = <u, f(u)>,  u = c_in x

Then x - sigma^2 grad E = c_skip x + c_out grad_u G exactly: the energy is a diffusion whose field F is a gradient, and
learns as one ("score"); or its values learn from Langevin chains ("contrastive").

Reference: Salimans & Ho 2021, "Should EBMs Model the Energy or the Score?"; Du et al. 2023, "Reduce, Reuse, Recycle".
"""

from collections.abc import Iterable
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from worldvae.models.contrastive_energy import RecoveryChains
from worldvae.models.kind_sections import PixelEnergyConfig
from worldvae.models.next_frame import NextFrameModel
from worldvae.models.parts import WorldModelConfig
from worldvae.models.pixel_state import PixelState, Window
from worldvae.models.seeded_kicks import seeded_kicks
from worldvae.networks.unet import Known
from worldvae.objectives import ELBOConfig
from worldvae.objectives.edm import precondition
from worldvae.objectives.langevin import annealed
from worldvae.objectives.probability_ode import Denoise, ODESolver, integrate, sigma_grid
from worldvae.types import ActionLayout, Kind, ObservationLayout, State


class PixelEnergy(NextFrameModel):
    """`model.kind=pixel_energy`; see `NextFrameModel` for the arguments.

    All of it computes in float32: bfloat16 has too few digits for the gradient of a gradient.

    Attributes:
        density_kind: energies are unnormalised, and comparable only at the same sigma, context and action.
    """

    density_kind: ClassVar[Kind] = "unnormalised"

    def __init__(
        self,
        observation: ObservationLayout,
        action: ActionLayout,
        config: WorldModelConfig | None = None,
        objective: ELBOConfig | None = None,
    ) -> None:
        super().__init__(observation, action, config, objective)
        if self.numbers.training == "contrastive":
            self.steps = None  # its chains have noise levels of their own
        self.chains = RecoveryChains(self.numbers.contrastive, self.numbers.sigma_max)

    @property
    def numbers(self) -> PixelEnergyConfig:
        """The section `model.pixel_energy`."""
        return self.config.pixel_energy

    def look(self, network: nn.Module, frames: Tensor, actions: Tensor, corruption: Tensor) -> Known:
        """Return what the network knows of frames and actions, in float32."""
        with torch.autocast(frames.device.type, enabled=False):
            return super().look(network, frames, actions, corruption)

    def autocast(self) -> torch.autocast:
        """Return a context in which everything computes in float32."""
        return torch.autocast(self.device.type, enabled=False)

    @property
    def precision(self) -> str:
        """What the model computes in."""
        return "float32"

    def field(
        self, network: nn.Module, u: Float[Tensor, "batch entry"], level: Float[Tensor, " batch"], known: Known
    ) -> Float[Tensor, "batch entry"]:
        """Return F = grad_u G, also where gradients are switched off; where they are not, it can be differentiated."""
        differentiable = torch.is_grad_enabled()
        if not differentiable:
            known = known[0].detach(), known[1].detach()
        with torch.enable_grad(), torch.autocast(u.device.type, enabled=False):
            point = u if differentiable and u.requires_grad else u.detach().requires_grad_()
            inner = (point * network(point, level, known)).sum()
            found: Tensor = torch.autograd.grad(inner, point, create_graph=differentiable)[0]
        return found

    def sample(
        self, denoise: Denoise, known: Known, noise: Float[Tensor, "batch noise"]
    ) -> Float[Tensor, "batch entry"]:
        """Follow the flow, or run the chains, from `sigma_max` times the noise."""
        numbers, entries = self.numbers, self.units.entries
        sigmas = sigma_grid(self.steps or numbers.steps, numbers.sigma_min, numbers.sigma_max)
        start = noise[:, :entries]
        if numbers.sampler != "langevin":
            return integrate(denoise, sigmas[0] * start, sigmas, cast(ODESolver, numbers.sampler))
        contrastive = numbers.training == "contrastive"
        steps = numbers.contrastive.steps if contrastive else numbers.langevin_steps

        def kicks(chain: int) -> Iterable[Tensor]:
            return seeded_kicks(noise[:, entries], chain, steps, entries)

        if not contrastive:
            return annealed(denoise, sigmas[0] * start, sigmas, numbers.langevin_step, kicks)

        def gradient(x: Tensor, sigma: float) -> Tensor:
            return (x - denoise(x, sigma)) / sigma**2

        return self.chains.descend(gradient, start, kicks)

    @property
    def mode_sigma(self) -> float:
        """The noise at which the mode is computed: the largest at which there is a trained energy."""
        return self.chains.sigmas[-2] if self.numbers.training == "contrastive" else super().mode_sigma

    @property
    def noise_size(self) -> int:
        """Random numbers of an imagined step: its start and, for a chain, the seed of its kicks."""
        return self.units.entries + (self.numbers.sampler == "langevin")

    def energy(
        self,
        state: State,
        action: Float[Tensor, "batch action"],
        x: Float[Tensor, "batch entry"],
        sigma: Float[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """Return E(x; sigma) in nats, by the average of the weights; -E is the log-density but for a constant.

        Args:
            state: states `[batch]`, after which x comes.
            action: the action taken there.
            x: flat frames with noise of standard deviation sigma, in the units of `units.to_denoised`.
            sigma: standard deviation of the noise; with training=contrastive, one of `chains.sigmas`.
        """
        network, window = self.average.network, PixelState.of(state).window
        clear = torch.zeros_like(sigma)
        known = self.look(network, self.units.to_denoised(window.frames), window.then(action), clear)
        return self._energy(network, x, sigma, known)

    def _energy(self, network: nn.Module, x: Tensor, sigma: Tensor, known: Known) -> Tensor:
        c = precondition(sigma, self.units.spread)
        u, square = c.into * x, sigma.square()
        inner = (u * network(u, c.level, known)).sum(-1)
        outer = (1 - c.skip.squeeze(-1)) / (2 * square) * x.square().sum(-1)
        found: Tensor = outer - (c.out / c.into).squeeze(-1) / square * inner
        return found

    def frame_loss(
        self,
        window: Window,
        action: Float[Tensor, "batch action"],
        target: Shaped[Tensor, "batch entry"],
        generator: torch.Generator | None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the loss of the energy, as a regression of its gradient or contrastive, and metrics."""
        if self.numbers.training == "score":
            return super().frame_loss(window, action, target, generator)
        known, chains = self.blurred(window, action, generator), self.chains
        clean = self.units.to_denoised(target)
        size, device = clean.shape, clean.device

        def normal() -> Tensor:
            return torch.randn(size, device=device, generator=generator)

        level = torch.randint(chains.config.levels, size[:1], device=device, generator=generator)
        sigma = torch.tensor(chains.sigmas, device=device)[level]
        tau = torch.tensor(chains.taus, device=device)[level].unsqueeze(-1)
        positive = clean + sigma.unsqueeze(-1) * normal()
        noisier = positive + tau * normal()
        begin = noisier if chains.config.start == "noisier" else self.units.to_denoised(window.frames[:, -1])

        def gradient(x: Tensor) -> Tensor:
            return (x - self._denoised(self.network, x, sigma, known)) / sigma.square().unsqueeze(-1)

        with torch.no_grad():
            kicks = (normal() for _ in range(chains.config.steps))
            negative = chains.chain(gradient, noisier, begin, tau, kicks)
        real, drawn = (self._energy(self.network, x, sigma, known) for x in (positive, negative))
        contrast = (real - drawn).mean()
        farther = (negative - positive).square().mean() / (noisier - positive).square().mean()
        # Per entry, so that reward and continuation have a say beside ten thousand pixels.
        return contrast / size[1], {"energy_contrast": contrast.detach(), "chain_error": farther.detach()}
