"""What keeps the latents of a joint-embedding model from collapsing: the words of `jepa.regulariser`."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldvae.models.kind_sections import JEPAConfig
from worldvae.objectives.sigreg import random_directions, sigreg
from worldvae.objectives.vicreg import inverse_error, squared_covariance, std_hinge


class LatentRegulariser(nn.Module):
    """SIGReg, or VICReg with inverse dynamics, or nothing; all rows of a batch are pooled.

    Args:
        config: which one, and its weights.
        inverse: guesses the action between two latents, from both of them joined; only VICReg keeps it.
    """

    def __init__(self, config: JEPAConfig, inverse: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.inverse = inverse if config.regulariser == "vicreg" else None

    def forward(
        self,
        rows: Float[Tensor, "sample latent"],
        latent: Float[Tensor, "batch time latent"],
        action: Float[Tensor, "batch time action"],
        joined: Bool[Tensor, "batch before"],
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Return the weighted cost, and its terms by name.

        Args:
            rows: latents whose distribution counts.
            latent: latents of all rows.
            action: actions of all rows.
            joined: whether row t and row t + 1 are of one episode, for all rows but the last.
            generator: source of SIGReg's directions.
        """
        config = self.config
        if config.regulariser == "sigreg":
            directions = random_directions(config.directions, config.latent, generator, latent.device)
            return config.sigreg * sigreg(rows, directions, config.knots), {}
        if self.inverse is None or len(rows) < 2:
            return rows.sum() * 0, {}
        guessed = self.inverse(torch.cat([latent[:, :-1], latent[:, 1:]], dim=-1))
        terms = {
            "std_hinge": std_hinge(rows),
            "covariance": squared_covariance(rows),
            "inverse_error": inverse_error(guessed, action[:, :-1], joined),
        }
        weights = {"std_hinge": config.std, "covariance": config.covariance, "inverse_error": config.inverse}
        total = sum((weights[name] * term for name, term in terms.items()), rows.new_zeros(()))
        return total, terms
