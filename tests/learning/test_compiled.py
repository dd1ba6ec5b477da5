"""The compiled imagined step equals the plain one (here, because `torch.compile` fails with the checks of shapes)."""

import copy
import shutil

import pytest
import torch

from worldvae.models.parts import WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE, _compiled_step
from worldvae.types import ActionLayout, ObservationLayout


@pytest.mark.gate
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_compiled_dream_is_the_plain_one_and_follows_the_weights_of_a_copy() -> None:
    layouts = ObservationLayout(None, 3), ActionLayout(2, ())
    plain = SequentialVAE(*layouts, WorldModelConfig(size="tiny", precision="float32"))
    compiled = SequentialVAE(*layouts, WorldModelConfig(size="tiny", precision="float32", compile=True))
    compiled.load_state_dict(plain.state_dict())
    actions = torch.randn(4, 6, 2, generator=torch.Generator().manual_seed(1))

    def dream(model: SequentialVAE) -> torch.Tensor:
        with torch.no_grad():
            return model.imagine(model.initial(4), actions, generator=torch.Generator().manual_seed(0)).states.features

    torch.testing.assert_close(dream(compiled), dream(plain), rtol=1e-4, atol=1e-5)
    assert _compiled_step.cache_info().currsize == 1  # and the plain model did not use it
    for model in (plain, other := copy.deepcopy(compiled)):
        for parameter in model.parameters():
            parameter.data.mul_(1.2)
    torch.testing.assert_close(dream(other), dream(plain), rtol=1e-4, atol=1e-5)
