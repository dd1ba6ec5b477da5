"""log q(z | h, e) of given states, which goals and bounds ask for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from worldvae.models.sequential_vae import SequentialVAE
from worldvae.types import Batch, VectorState

Maker = Callable[..., SequentialVAE]
Rows = Callable[..., Batch]

PARTS: list[dict[str, Any]] = [
    {},
    {"latent": "full"},
    {"latent": "categorical"},
    {"prior": "hierarchical"},
    {"posterior": "flow"},
    {"context": "smooth"},
    {"stages": "two"},
    {"memory": "transformer"},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_it_is_the_density_of_the_q_from_which_observe_drew(make_model: Maker, make_batch: Rows, parts) -> None:
    model = make_model(**parts)
    rows = make_batch(model, 3, 4)
    levels = parts.get("prior") == "hierarchical"  # each is conditioned on the modes of those above it
    found = model.observe(rows, generator=torch.Generator().manual_seed(0), mode=levels)
    expected = model.posterior.distribution(found.parameters).log_prob(found.posterior.latent)
    value = model.log_posterior(found.posterior, model.embed(rows))
    assert value.shape == (3, 4)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("parts", [{}, {"posterior": "flow"}], ids=str)
def test_one_observation_is_shared_by_many_states(make_model: Maker, make_batch: Rows, parts) -> None:
    model = make_model(**parts)
    rows = make_batch(model, 3, 4)
    states = model.observe(rows, generator=torch.Generator().manual_seed(0)).posterior
    seen = model.embed(rows)[:, :1]
    torch.testing.assert_close(model.log_posterior(states, seen), model.log_posterior(states, seen.expand(-1, 4, -1)))


def test_states_of_another_model_are_refused(make_model: Maker) -> None:
    with pytest.raises(ValueError, match="state is a VectorState, but a memory and a latent are needed"):
        make_model().log_posterior(VectorState(torch.zeros(2, 3)), torch.zeros(2, 5))
