"""The comparison of priors on digits: end to end, and with known answers."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torch.distributions import Normal

from worldvae.diagnostics import log_ratio
from worldvae.errors import UserError
from worldvae.models.static_vae import VAE
from worldvae.posteriors import Posterior
from worldvae.priors import FlowMatchingPrior, ParametricPrior, StandardPrior
from worldvae.studies import digit_vaes, digits
from worldvae.studies.digit_vaes import LATENT, PRIORS, Digits, load_digits, make_vae
from worldvae.studies.digits import DigitsConfig, DigitsRow, compare_priors, hole, train, with_density
from worldvae.studies.digits_table import digits_table, failures, standings
from worldvae.studies.flow_density import FlowDensity

SHORT = DigitsConfig(epochs=2, batch=32, look=1, samples=16, elbo_samples=8)


@pytest.fixture(scope="module")
def few() -> Digits:
    whole = load_digits()
    assert [len(part) for part in (whole.train, whole.validation, whole.test)] == [1300, 200, 297]
    return Digits(whole.train[:80], whole.validation[:20], whole.test[:9])


@pytest.fixture
def short(few: Digits, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[DigitsRow]]:
    monkeypatch.setattr(digits, "load_digits", lambda: few)
    monkeypatch.setattr(digits, "log_ratio", partial(log_ratio, updates=20))
    return lambda out, seeds, names: compare_priors(out, seeds, names, SHORT)


def shown(rows: list[DigitsRow]) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(digits_table(rows))
    return capture.get()


def test_every_prior_makes_a_row(short: Callable[..., list[DigitsRow]], tmp_path: Path) -> None:
    rows = short(tmp_path, [0], tuple(PRIORS))
    assert [row.prior for row in rows] == list(PRIORS)
    assert failures(rows) == []
    for row in rows:
        found = row.measured
        assert found is not None
        assert found.kind == ("estimate" if row.prior == "flow_matching" else "lower_bound")
        assert found.elbo < found.bound < 0  # log-probabilities; and more samples give a higher bound
        assert found.rate > 0 and 0 <= found.active <= found.latent == LATENT
        assert found.epoch in (1, 2) and found.parameters > found.prior_parameters
        assert found.nats.shape == (9,) and found.samples.shape == (16, 8, 8)
        assert found.bound == pytest.approx(float(found.nats.mean()))
    assert {row.prior for row in rows if row.measured and row.measured.prior_parameters == 0} == {"standard"}
    objects = json.loads((tmp_path / "digits.json").read_text())
    assert [len(found.pop("nats")) for found in objects] == [9] * len(rows)
    assert objects == [row.figures() for row in rows]
    with Image.open(tmp_path / "digits.png") as picture:
        assert picture.height > 8 * 32 and picture.width > 16 * 32
    assert all(name in shown(rows) for name in PRIORS)


def test_a_prior_that_fails_is_shown_as_failed(
    short: Callable[..., list[DigitsRow]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(vae: VAE, x: Tensor) -> tuple[StandardPrior, Posterior]:
        raise RuntimeError("the pseudo-inputs are lost")

    def wild(vae: VAE, x: Tensor) -> tuple[StandardPrior, Posterior]:
        vae.likelihood.offset.fill_(math.nan)
        return StandardPrior(LATENT), vae.posterior

    monkeypatch.setitem(digit_vaes.PRIORS, "vamp", broken)
    monkeypatch.setitem(digit_vaes.PRIORS, "flow", wild)
    rows = short(tmp_path, [3], ("vamp", "flow", "standard"))
    assert [row.measured is None for row in rows] == [True, True, False]
    assert failures(rows)[0] == "vamp, seed 3, failed: RuntimeError: the pseudo-inputs are lost"
    assert "not finite" in failures(rows)[1]
    assert json.loads((tmp_path / "digits.json").read_text())[0]["failure"].endswith("are lost")
    assert shown(rows).splitlines()[1].split()[:3] == ["vamp", "failed", "failed"]


def test_the_same_seed_gives_the_same_row(short: Callable[..., list[DigitsRow]], tmp_path: Path) -> None:
    for name in ("vamp", "flow_matching"):
        first, again, other = (short(tmp_path, [seed], (name,))[0].measured for seed in (0, 0, 1))
        assert first is not None and again is not None and other is not None
        assert torch.equal(first.nats, again.nats) and torch.equal(first.samples, again.samples)
        assert (first.mmd, first.log_ratio, first.elbo) == (again.mmd, again.log_ratio, again.elbo)
        assert not torch.equal(first.nats, other.nats)


def test_under_one_seed_all_priors_start_from_the_same_networks(few: Digits) -> None:
    vaes = [make_vae(name, 5, few.train) for name in PRIORS]
    for vae in vaes[1:]:
        for part in ("encoder", "likelihood"):
            ours, theirs = (getattr(v, part).state_dict() for v in (vae, vaes[0]))
            assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize("name", ["gaussian", "flow", "flow_matching"])
def test_priors_start_as_the_standard_prior_if_they_can(few: Digits, name: str) -> None:
    plain, other = (with_density(make_vae(n, 0, few.train)) for n in ("standard", name))
    ours, theirs = (vae.bound(few.test, 4, torch.Generator().manual_seed(0)).nats for vae in (plain, other))
    assert torch.allclose(ours, theirs, atol=1e-3)


def constant_posterior(mean: float) -> VAE:
    """Return a VAE whose posterior is N(mean, I) for every input."""
    vae = make_vae("standard", 0, torch.zeros(1, 8, 8))
    with torch.no_grad():
        vae.posterior.net.project.weight.zero_()
        raw = 2 * (math.log((1 - 1e-3) / (1 + 1e-3)) + 2.2)  # 2 sigmoid(raw / 2 - 2.2) + 0.001 = 1
        vae.posterior.net.project.bias.copy_(torch.tensor([mean] * LATENT + [raw] * LATENT))
    return vae


def test_a_prior_that_is_the_aggregated_posterior_has_no_hole() -> None:
    x = torch.zeros(300, 8, 8)
    gap, ratio, std = hole(constant_posterior(0.0), x, torch.Generator().manual_seed(0))
    assert abs(gap) < 0.01 and abs(ratio) < 0.05
    assert torch.allclose(std, torch.ones(LATENT), atol=0.1)
    gap, ratio, _ = hole(constant_posterior(0.5), x, torch.Generator().manual_seed(0))
    assert gap > 0.05
    assert ratio == pytest.approx(LATENT * 0.5**2 / 2, rel=0.3)  # KL(N(0.5, I) || N(0, I))


class Moved(Posterior):
    """A posterior whose latents are shifted and stretched."""

    def __init__(self, inner: Posterior, shift: Tensor, scale: Tensor) -> None:
        super().__init__(inner.latent_size)
        self.inner, self.shift, self.scale = inner, shift, scale

    def project(self, embedding: Tensor) -> Tensor:
        return self.inner.project(embedding)

    def infer(self, memory: Tensor, projected: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
        latent, parameters = self.inner.infer(memory, projected, noise)
        return self.shift + self.scale * latent, parameters

    def sample_and_log_prob(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        latent, log_prob = self.inner.sample_and_log_prob(parameters, noise)
        return self.shift + self.scale * latent, log_prob - self.scale.log().sum()


def test_a_learnt_gaussian_prior_is_an_affine_change_of_latents(few: Digits) -> None:
    plain, learnt = (make_vae(name, 0, few.train).double() for name in ("standard", "gaussian"))
    prior = learnt.prior
    assert isinstance(prior, ParametricPrior)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    p = prior(torch.zeros(0, dtype=torch.float64))
    shift, scale = p.mean.detach().double(), p.stddev.detach().double()
    back = nn.Linear(LATENT, LATENT, dtype=torch.float64)
    back.weight.data, back.bias.data = torch.diag(1 / scale), -shift / scale
    learnt.likelihood.trunk = nn.Sequential(back, learnt.likelihood.trunk)
    moved = VAE(learnt.encoder, Moved(learnt.posterior, shift, scale), prior, learnt.likelihood)
    x = few.test.double()
    ours, theirs = (vae.bound(x, 8, torch.Generator().manual_seed(0)).nats for vae in (plain, moved))
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-4)  # the prior's parameters are computed in float32


def test_the_density_of_an_untrained_flow_is_standard_and_of_another_that_of_many_strides(few: Digits) -> None:
    plain, matched = (make_vae(name, 0, few.train) for name in ("standard", "flow_matching"))
    bounds = [with_density(vae).bound(few.test, 4, torch.Generator().manual_seed(0)) for vae in (plain, matched)]
    assert [bound.kind for bound in bounds] == ["lower_bound", "estimate"]
    assert torch.allclose(bounds[0].nats, bounds[1].nats, atol=1e-3)
    prior = matched.prior
    assert isinstance(prior, FlowMatchingPrior)
    nn.init.normal_(prior.net[-1].weight, std=0.05, generator=torch.Generator().manual_seed(0))
    z, none = torch.randn(50, LATENT, generator=torch.Generator().manual_seed(1)), torch.zeros(50, 0)
    with torch.no_grad():
        few_strides, many = FlowDensity(prior, 8).log_prob(z, none), FlowDensity(prior, 128).log_prob(z, none)
        standard = Normal(0, 1).log_prob(z).sum(-1)
        sample = FlowDensity(prior, 64)
        assert torch.allclose(sample.mode(none), sample.step(none, torch.zeros_like(z)))
    assert (few_strides - many).abs().max() < 0.1 < (many - standard).abs().max()


def test_training_restores_the_best_evaluation(few: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, looks, weights = make_vae("standard", 0, few.train), iter([1.0, 3.0, 2.0]), []

    def look(model: VAE, *_: object) -> tuple[Tensor, Tensor]:
        weights.append({key: value.clone() for key, value in model.state_dict().items()})
        return torch.tensor([next(looks)]), torch.zeros(1)

    monkeypatch.setattr(digits, "_elbo", look)
    assert train(vae, few, replace(SHORT, epochs=5, look=2), 0) == 4  # it evaluates after epochs 2, 4 and 5
    assert all(torch.equal(value, weights[1][key]) for key, value in vae.state_dict().items())
    assert any(not torch.equal(value, weights[2][key]) for key, value in vae.state_dict().items())


def test_a_gain_is_that_of_the_same_digits_under_the_same_seeds(
    short: Callable[..., list[DigitsRow]], tmp_path: Path
) -> None:
    rows = short(tmp_path, [0], ("standard",))
    plain = rows[0].measured
    assert plain is not None
    steps = torch.tensor([0.0, 2.0, 1.0] * 3)
    rows = [
        rows[0],
        DigitsRow("vamp", 0, replace(plain, nats=plain.nats + steps, bound=plain.bound + 1)),
        DigitsRow("vamp", 1, replace(plain, nats=plain.nats - 50, bound=plain.bound - 50)),
        DigitsRow("vamp", 2, None, "why"),
    ]
    standard, vamp = standings(rows)
    assert standard.gain is None
    assert vamp.gain == pytest.approx(1.0, abs=1e-4)  # seed 1 has no result to compare with
    assert vamp.gain_error == pytest.approx(float(steps.std()) / 3, abs=1e-4)
    assert vamp.runs == 2 and vamp.failures == ["seed 2: why"]
    assert vamp.bound == pytest.approx(plain.bound - 24.5) and vamp.lowest == pytest.approx(plain.bound - 50)


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"'vampp' is not a prior of this study.*Did you mean 'vamp'"):
        compare_priors(tmp_path, [0], names=("vampp",))
    with pytest.raises(UserError, match="seed=-1"):
        compare_priors(tmp_path, [-1])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        compare_priors(tmp_path / "file", [0])
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match=r"pip install 'worldvae\[digits\]'"):
        compare_priors(tmp_path, [0])
