"""The optimiser's warm-up, decay and clipping act, and its steps are Adam's."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from worldvae.errors import Diverged
from worldvae.memory import LatentState
from worldvae.models.parts import WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.networks import TRUNKS, scale_learning_rate
from worldvae.networks.optimiser import PATIENCE, Optimiser, OptimiserConfig
from worldvae.types import ActionLayout, Observation, ObservationLayout


@given(final=st.floats(0, 1), progress=st.floats(0, 1.5))
@settings(max_examples=20, deadline=None)
def test_the_decay_is_linear_in_the_progress_of_the_run(final: float, progress: float) -> None:
    weight = nn.Parameter(torch.zeros(1))
    optimiser = Optimiser([weight], OptimiserConfig(learning_rate=0.1, warmup=0, final=final))
    optimiser.step(weight.sum(), progress)
    expected = 0.1 * (1 + (final - 1) * min(progress, 1.0))
    assert -float(weight.detach()) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@given(warmup=st.integers(0, 6))
@settings(max_examples=7, deadline=None)
def test_the_warm_up_is_linear(warmup: int) -> None:
    """With a constant gradient, Adam's first steps have the length of the step size."""
    weight = nn.Parameter(torch.zeros(1))
    optimiser = Optimiser([weight], OptimiserConfig(learning_rate=0.1, warmup=warmup))
    for update in range(1, 9):
        before = float(weight.detach())
        optimiser.step(weight.sum())
        expected = 0.1 * min(1.0, update / max(1, warmup))
        assert before - float(weight.detach()) == pytest.approx(expected, rel=1e-4)


def test_clipping_acts_on_the_global_norm_and_reports_the_norm_before_it() -> None:
    weights = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    optimiser = Optimiser(weights, OptimiserConfig(clip=1.0))
    assert float(optimiser.step(30 * weights[0].sum() + 40 * weights[1].sum())) == pytest.approx(50)
    assert [float(w.grad) for w in weights if w.grad is not None] == pytest.approx([0.6, 0.8], rel=1e-4)
    assert float(optimiser.step(0.3 * weights[0].sum() + 0.4 * weights[1].sum())) == pytest.approx(0.5)
    assert [float(w.grad) for w in weights if w.grad is not None] == pytest.approx([0.3, 0.4])


def test_against_torchs_adam() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Linear(3, 2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimiser = Optimiser(ours.parameters(), OptimiserConfig(learning_rate=0.01, warmup=0, eps=1e-8))
    adam = torch.optim.Adam(theirs.parameters(), lr=0.01)
    x = torch.randn(5, 3)
    for _ in range(20):
        optimiser.step(ours(x).square().sum())
        adam.zero_grad()
        theirs(x).square().sum().backward()
        adam.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6)


def test_a_parameter_without_gradient_is_left_alone() -> None:
    used, unused = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    Optimiser([used, unused], OptimiserConfig(warmup=0)).step(used.sum())
    assert float(used.detach()) < 1
    assert float(unused.detach()) == 1


def test_it_gives_up_after_a_few_in_a_row_and_not_after_a_few_in_all() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimiser = Optimiser([weight], OptimiserConfig())
    for _ in range(3):
        for _ in range(PATIENCE - 1):
            optimiser.step(weight.sum() * torch.nan)
        optimiser.step(weight.sum())
    assert optimiser.skipped == 3 * (PATIENCE - 1) and optimiser.updates == 3
    for _ in range(PATIENCE - 1):
        optimiser.step(weight.sum() * torch.inf)
    with pytest.raises(Diverged, match=r"5 times in a row, after 3 updates.*optimiser\.learning_rate"):
        optimiser.step(weight.sum() * torch.inf)


@pytest.mark.parametrize("trunk", ["patch", *TRUNKS])
def test_a_step_equals_plain_adams_for_every_memory_layout(trunk: str) -> None:
    """Adam's fused step ignores layouts: a gradient whose layout differs from its parameter's would be scrambled."""
    config = WorldModelConfig(size="tiny", trunk=trunk, precision="float32")
    layouts = (ObservationLayout((3, 64, 64)), ActionLayout(1))
    fused, plain = SequentialVAE(*layouts, config), SequentialVAE(*layouts, config)
    for parameter in fused.parameters():  # while the last layer is zero, no gradient reaches the others
        torch.nn.init.normal_(parameter, std=0.1)
    plain.load_state_dict(fused.state_dict())
    features = torch.randn(2, fused.feature_size)
    frames = torch.rand(2, 3, 64, 64)

    def loss(model: SequentialVAE) -> torch.Tensor:
        state = LatentState(features[:, : model.memory.size], features[:, model.memory.size :])
        embedded = model.encode(Observation(pixels=frames))
        return (model.decode(state, "pixels").mean - frames).square().sum() + embedded.square().sum()

    Optimiser(fused.parameters(), OptimiserConfig(learning_rate=1e-2, warmup=0, clip=1e9)).step(loss(fused))
    adam = torch.optim.Adam(plain.parameters(), lr=1e-2, eps=1e-7, fused=False, foreach=False)
    loss(plain).backward()
    adam.step()
    for (name, ours), theirs in zip(fused.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4), name


def test_parameters_with_a_scaled_learning_rate_take_larger_steps() -> None:
    slow, fast = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    scale_learning_rate([fast], 4.0)
    optimiser = Optimiser([slow, fast], OptimiserConfig(learning_rate=0.1, warmup=0))
    for _ in range(3):
        optimiser.step((slow + fast - 1).sum())
    torch.testing.assert_close(slow, torch.full((3,), -0.3), atol=1e-4, rtol=0)
    torch.testing.assert_close(fast, 4 * slow)
