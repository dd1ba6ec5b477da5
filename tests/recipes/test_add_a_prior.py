"""How to add a prior p(z | h).

1. Subclass `Prior`: `forward` (the distribution given h), `step` (noise -> z), `mode`. KL and log_prob follow from
   them; a prior without a density implements `log_prob`, and `kind` says what kind of number it returns.
2. Register a function that builds it from the sizes around it, and what it fits: one entry of `PRIORS`.
3. Train: `model.prior=laplace`. (A prior with its own settings has a frozen dataclass above its class, and a field of
   the prior's name in `WorldModelConfig`; the function that builds it gets that section as its second argument.)
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Laplace
from torch.nn import functional as F

import worldvae as wv
from worldvae.models.registry import OVER_VECTORS, PRIORS, Part
from worldvae.networks import MLP
from worldvae.priors import Prior
from worldvae.runs.settings import configure

SMALL = (Path(__file__).parents[1] / "small_run.txt").read_text().split()
TASK = {"env": {"id": "worldvae/Tiny-v0", "obs": "state"}}


class LaplacePrior(Prior):
    """p(z | h) = Laplace(m(h), s(h)): a latent that mostly stays where it is expected, and sometimes jumps."""

    def __init__(self, memory: int, latent: int, hidden: int) -> None:
        super().__init__(latent)
        self.net = MLP(memory, hidden, 1, 2 * latent)

    def forward(self, memory: Tensor) -> Distribution:
        mean, raw = self.net(memory).float().chunk(2, dim=-1)
        return Independent(Laplace(mean, F.softplus(raw) + 0.05, validate_args=False), 1, validate_args=False)

    def step(self, memory: Tensor, noise: Tensor) -> Tensor:
        uniform = torch.special.ndtr(noise.float()).clamp(1e-6, 1 - 1e-6)  # (the noise is standard normal)
        return self(memory).base_dist.icdf(uniform)

    def mode(self, memory: Tensor) -> Tensor:
        return self(memory).mean


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Part(lambda sizes, _: LaplacePrior(sizes.memory, sizes.latent, sizes.hidden), OVER_VECTORS)
    monkeypatch.setitem(PRIORS, "laplace", made)  # in your own program: PRIORS["laplace"] = made


def test_it_is_trained_and_comes_back(tmp_path: Path) -> None:
    config = configure(TASK, [*SMALL, "model.prior=laplace", "train.updates=8", "train.eval_episodes=0"])
    trainer = wv.Trainer.begin(config, tmp_path / "run")
    trainer.train()
    trainer.close()
    model = wv.load(tmp_path / "run").model
    assert isinstance(model, wv.SequentialVAE) and isinstance(model.prior, LaplacePrior)
    memory = torch.zeros(4000, model.memory.size)
    drawn = model.prior.step(memory, model.prior.noise((4000,), memory.device, torch.Generator().manual_seed(0)))
    p = model.prior(memory[0])
    assert torch.allclose((drawn - p.mean).abs().mean(0), p.base_dist.scale, rtol=0.1)


def test_what_it_cannot_be_built_with_is_refused() -> None:
    with pytest.raises(wv.UserError, match="model: prior=laplace cannot be built with latent=categorical"):
        configure(TASK, ["model.prior=laplace", "model.latent=categorical"])
