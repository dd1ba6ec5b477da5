"""Iterative inference closes the gap of an untrained encoder, and its cost is counted."""

import pytest
import torch

from worldvae.diagnostics import compare_inference

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize("latent", ["gaussian", "full"])
def test_refining_closes_the_gap_of_an_untrained_encoder(make_model, make_batch, latent: str) -> None:
    model = make_model(None, vector=3, latent=latent)
    with torch.no_grad():  # a decoder that depends on z
        for parameter in model.senses.decoders.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    rows, generator = make_batch(model, 4, 8), torch.Generator().manual_seed(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = compare_inference(model, rows, generator, number=8, steps=(5, 50), draws=60, samples=64)
    amortised, few, many, scratch, hmc = found
    assert amortised.gap > many.gap - 0.05 and few.gap < amortised.gap + 0.05
    assert many.bound > amortised.bound + 0.1
    assert scratch.bound > many.bound - 0.3
    assert hmc.gap < amortised.gap
    assert all(way.gap >= -1e-3 and way.kind == "lower_bound" and way.milliseconds > 0 for way in found)
    assert [way.encoder_calls for way in found] == [1, 1, 1, 0, 1]
    assert amortised.decoder_calls == 0 < few.decoder_calls < many.decoder_calls < scratch.decoder_calls
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_refined_is_refused(make_model, make_batch) -> None:
    model = make_model(prior="hierarchical")
    with pytest.raises(ValueError, match="AmortisedPosterior and an exact log-density, not ResidualPosterior"):
        compare_inference(model, make_batch(model, 2, 3), torch.Generator())
    model = make_model(None, vector=3, latent="categorical")
    with pytest.raises(ValueError, match="HMC from a Gaussian, not from CategoricalFamily"):
        compare_inference(model, make_batch(model, 2, 3), torch.Generator())
