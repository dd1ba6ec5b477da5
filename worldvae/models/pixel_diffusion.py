"""A diffusion of the next frame: a world model without latents.

Reference: Alonso et al. 2024, "Diffusion for World Modeling: Visual Details Matter in Atari" (DIAMOND).
"""

from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from worldvae.models.kind_sections import PixelDiffusionConfig
from worldvae.models.next_frame import NextFrameModel
from worldvae.networks.unet import Known
from worldvae.objectives.probability_ode import Denoise, ODESolver, integrate, sigma_grid


class PixelDiffusion(NextFrameModel):
    """`model.kind=pixel_diffusion`: the network itself is the field F; see `NextFrameModel` for the arguments."""

    @property
    def numbers(self) -> PixelDiffusionConfig:
        """The section `model.pixel_diffusion`."""
        return self.config.pixel_diffusion

    def field(
        self, network: nn.Module, u: Float[Tensor, "batch entry"], level: Float[Tensor, " batch"], known: Known
    ) -> Float[Tensor, "batch entry"]:
        """Return F(u, level), computed in `precision`."""
        with self.autocast():
            found: Tensor = network(u, level, known)
        return found.float()

    def sample(
        self, denoise: Denoise, known: Known, noise: Float[Tensor, "batch noise"]
    ) -> Float[Tensor, "batch entry"]:
        """Follow the probability flow from `sigma_max` times the noise, in `steps` steps."""
        sigmas = sigma_grid(self.steps or self.numbers.steps, self.numbers.sigma_min, self.numbers.sigma_max)
        solver = cast(ODESolver, self.numbers.sampler)
        return integrate(denoise, sigmas[0] * noise, sigmas, solver)
