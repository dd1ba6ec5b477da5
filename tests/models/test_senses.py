"""Frames, vectors and their units: encoding, decoding, log-likelihoods and shown values agree."""

from collections.abc import Callable

import pytest
import torch

from worldvae.distributions import symlog
from worldvae.models.parts import WorldModelConfig
from worldvae.models.senses import Senses, unit
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.types import Batch, Observation, ObservationLayout

Maker = Callable[..., SequentialVAE]
Rows = Callable[..., Batch]


def test_senses_work_without_a_world_model() -> None:
    config = WorldModelConfig(size="tiny", depth=4, precision="float32")
    senses = Senses(ObservationLayout((1, 8, 8), 3), 5, config)
    assert [name for name, _ in senses.named_children()] == ["encoders", "decoders"]
    assert list(senses.encoders) == list(senses.decoders) == ["pixels", "vector"]
    seen = Observation(torch.zeros(2, 4, 1, 8, 8, dtype=torch.uint8), torch.randn(2, 4, 3))
    senses.calibrate(seen)
    assert senses.encode(seen).shape == (2, 4, senses.embedding_size)
    features = torch.randn(2, 4, 5)
    assert senses.decode(features).mean.shape == (2, 4, 1, 8, 8)
    assert senses.decode(features, "vector").mean.shape == (2, 4, 3)


def test_the_log_likelihood_is_of_each_kind_that_was_observed_and_broadcasts(
    make_model: Maker, make_batch: Rows, generator: torch.Generator
) -> None:
    model = make_model((1, 8, 12), vector=3)
    rows = make_batch(model, 2, 4)
    states, seen = model.observe(rows, generator=generator).posterior, rows.observation
    assert seen.pixels is not None and seen.vector is not None
    found = model.log_likelihood(states, seen)
    assert list(found) == ["pixels", "vector"]
    assert torch.equal(found["pixels"], model.decode(states).log_prob(unit(seen.pixels)))
    assert torch.equal(found["vector"], model.decode(states, "vector").log_prob(symlog(seen.vector)))
    assert list(model.log_likelihood(states, Observation(vector=seen.vector))) == ["vector"]
    several = states.map(lambda x: x.expand(5, *x.shape))
    assert torch.allclose(model.log_likelihood(several, seen)["vector"], found["vector"].expand(5, 2, 4))


@pytest.mark.parametrize("pixels", [(1, 8, 12), None])
def test_what_is_shown_is_in_the_same_units_on_both_sides(
    make_model: Maker, make_batch: Rows, pixels: tuple[int, int, int] | None
) -> None:
    """An untrained decoder returns what it was calibrated to: the mean frame, and 0 for every standardised vector."""
    model = make_model(pixels, vector=3, awake=False)
    rows = make_batch(model, 4, 5)
    model.calibrate(rows.observation)
    seen, decoded = model.in_shown_units(model.observe(rows, mode=True).posterior, rows.observation)
    assert seen.shape == decoded.shape and seen.dtype == decoded.dtype == torch.float32
    torch.testing.assert_close(decoded[1, 2], seen.mean((0, 1)), atol=1e-5, rtol=0)
    if pixels is None:
        torch.testing.assert_close(seen.std((0, 1), correction=0), torch.ones(3), atol=1e-4, rtol=0)
    else:
        assert float(seen.min()) >= 0 and float(seen.max()) <= 1


def test_a_copy_in_float32_is_one_throughout_and_asks_for_no_gradients(make_model: Maker, make_batch: Rows) -> None:
    model = make_model((1, 8, 12), precision="bfloat16")
    seen, copied = make_batch(model, 2, 3).observation, model.in_float32()
    assert not any(p.requires_grad for p in copied.parameters()) and all(p.requires_grad for p in model.parameters())
    assert (model.precision, copied.precision) == ("bfloat16", "float32")
    exact = make_model((1, 8, 12)).encode(seen)
    assert torch.equal(copied.encode(seen), exact) and not torch.equal(model.encode(seen), exact)
