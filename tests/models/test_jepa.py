"""The joint-embedding predictive model: its verbs agree, and its roll-outs stay in an episode."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import worldvae as wv
from worldvae.errors import UserError
from worldvae.models.jepa import JEPA
from worldvae.models.jepa_state import JEPAState
from worldvae.models.kind_sections import JEPAConfig
from worldvae.models.kinds import KINDS
from worldvae.models.latent_rollout import roll_out
from worldvae.models.probabilistic import Probabilistic
from worldvae.models.world_model import WorldModel
from worldvae.networks.optimiser import Optimiser, OptimiserConfig
from worldvae.types import ActionLayout, Batch, ObservationLayout, State

Rows = Callable[..., Batch]
NUMBERS: dict[str, Any] = {
    "size": "tiny",
    "precision": "float32",
    "hidden": 16,
    "depth": 4,
    "memory_size": 8,
    "bins": 41,
}
SEEN = {"pixels": ((1, 8, 12), None), "vector": (None, 3), "both": ((1, 8, 12), 3)}


def make(seen: str = "pixels", *, action: ActionLayout | None = None, numbers: Any = None, **section: Any) -> JEPA:
    """Return a small model whose layers that start at zero do not."""
    config = wv.WorldModelConfig(kind="jepa", jepa=JEPAConfig(**{"latent": 6, **section}), **NUMBERS | (numbers or {}))
    model = JEPA(ObservationLayout(*SEEN[seen]), action or ActionLayout(continuous=2), config)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("predictor", ["residual", "gru"])
@pytest.mark.parametrize("seen", SEEN)
def test_it_speaks_the_protocol(seen: str, predictor: str, make_batch: Rows, generator: torch.Generator) -> None:
    model = make(seen, predictor=predictor)
    rows = make_batch(model, 3, 5)
    model.calibrate(rows.observation, rows.reward)
    assert isinstance(model, WorldModel) and not isinstance(model, Probabilistic) and KINDS["jepa"] is JEPA
    posterior = model.observe(rows).posterior
    assert posterior.features.shape == (3, 5, model.feature_size)
    assert torch.equal(posterior.without_memory, posterior.features[..., -6:])
    dream = model.imagine(posterior[:, -1], rows.action[:, :4], generator=generator)
    assert dream.states.features.shape == (3, 4, model.feature_size) and dream.rewards.shape == (3, 4)
    assert model.noise((4, 3), generator).shape == (4, 3, 0)
    assert model.shows == ({"pixels", "vector"} if seen == "both" else {seen})
    for modality in model.shows:
        assert model.decode(dream.states, modality).mean.shape[:2] == (3, 4)
    told, shown = model.in_shown_units(posterior, rows.observation)
    assert told.shape == shown.shape
    loss = model.loss(rows, generator)
    assert loss.value.isfinite() and all(value.isfinite() for value in loss.metrics.values())
    assert loss.states.features.shape == posterior.features.shape and not loss.states.features.requires_grad
    assert State.cat([posterior, dream.states], dim=1).size == 3  # as films do
    assert set(loss.states.tensors()) == set(model.initial(1).tensors())  # as a process that learns behaviour needs


@pytest.mark.parametrize("predictor", ["residual", "gru"])
@pytest.mark.parametrize("stack", [1, 2, 3])
@pytest.mark.parametrize("cut", [1, 3])
def test_two_parts_equal_the_whole(predictor: str, stack: int, cut: int, make_batch: Rows) -> None:
    model = make("both", predictor=predictor, stack=stack)
    rows = make_batch(model, 3, 6, firsts=(0, 4))
    at_once = model.observe(rows).posterior
    first = model.observe(rows[:, :cut]).posterior
    second = model.observe(rows[:, cut:], first[:, -1], rows.action[:, cut - 1]).posterior
    parts = State.cat([first, second], dim=1).tensors()
    for name, whole in at_once.tensors().items():
        torch.testing.assert_close(parts[name], whole, rtol=1e-4, atol=1e-5)


def test_the_first_row_of_an_episode_is_seen_as_a_goal_is(make_batch: Rows) -> None:
    model = make()
    rows = make_batch(model, 2, 5, firsts=(0, 3))
    found = model.observe(rows).posterior.latent
    alone = model.encode(rows.observation)
    assert torch.allclose(found[:, [0, 3]], alone[:, [0, 3]], atol=1e-6)
    assert not torch.allclose(found[:, [1, 4]], alone[:, [1, 4]], atol=1e-3)


@pytest.mark.parametrize("predictor", ["residual", "gru"])
def test_a_row_does_not_depend_on_the_others_of_its_batch(
    predictor: str, make_batch: Rows, generator: torch.Generator
) -> None:
    """Neither right after a loss, whose norms are those of its batch, nor in the modes of the module."""
    model = make(predictor=predictor)
    rows = make_batch(model, 8, 4)
    model.loss(rows, generator)
    together = model.observe(rows).posterior
    for training in (True, False):
        model.train(training)
        alone = model.observe(rows[2:3]).posterior
        torch.testing.assert_close(alone.features, together.features[2:3], rtol=1e-4, atol=1e-5)
    dreams = [
        model.imagine(start[:, -1], rows.action[i]) for start, i in ((together, slice(0, 8)), (alone, slice(2, 3)))
    ]
    torch.testing.assert_close(dreams[1].states.features, dreams[0].states.features[2:3], rtol=1e-4, atol=1e-5)


def test_the_loss_normalises_over_its_batch_in_both_modes_of_the_module(make_batch: Rows) -> None:
    model = make()
    rows = make_batch(model, 4, 5)
    found = [model.train(mode).loss(rows, torch.Generator().manual_seed(0)).value for mode in (True, False)]
    assert torch.equal(*found)
    assert float(model.projector.norm.batches) == 2


def test_a_dream_is_the_step_repeated_and_keeps_the_frames_seen_last(make_batch: Rows) -> None:
    model = make(predictor="gru")
    rows = make_batch(model, 3, 4)
    start = model.observe(rows).posterior[:, -1]
    dream = model.imagine(start, rows.action)
    state: State = start
    for t in range(4):
        state = model.step(state, rows.action[:, t])
        torch.testing.assert_close(state.features, dream.states.features[:, t])
    assert torch.equal(dream.states.frames[:, 2], start.frames) and torch.equal(dream.start.frames, start.frames)
    last = model.imagine(start, rows.action, last_only=True).states
    assert torch.equal(last.features, dream.states.features[:, -1:]) and last.frames.shape[:2] == (3, 1)
    assert model.imagine(replace(start, frames=None), rows.action).states.frames is None


@pytest.mark.parametrize("predictor", ["residual", "gru"])
def test_predictions_never_cross_the_border_of_an_episode(predictor: str, make_batch: Rows) -> None:
    """Rows from a border on do not change the errors of the rows before it, nor these the errors after it."""
    model = make("vector", predictor=predictor)
    rows = make_batch(model, 3, 8, firsts=(0, 4))
    other = make_batch(model, 3, 8, seed=1, firsts=(0, 4))

    def errors(latent: Tensor, action: Tensor) -> Tensor:
        batch = replace(rows, action=action)
        memory = model._remember(latent, batch, model.initial(3), None)
        known = torch.ones_like(rows.is_first)
        rolled = roll_out(model.step, JEPAState(latent, memory), action, rows.is_first, known, 5)
        total = torch.zeros(3, 8)
        for k, (state, valid) in enumerate(zip(rolled.states, rolled.valid, strict=True), start=1):
            missed = (state.latent - latent[:, k:]).square().mean(-1)
            total[:, : 8 - k] += torch.where(valid, missed, 0.0)
        return total

    latent, changed = (torch.randn(3, 8, 6, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    before = torch.arange(8) < 4
    mixed = errors(
        torch.where(before[:, None], latent, changed), torch.where(before[:, None], rows.action, other.action)
    )
    plain, replaced = errors(latent, rows.action), errors(changed, other.action)
    assert (plain[:, [0, 1, 2, 4, 5, 6]] > 0).all() and (plain[:, [3, 7]] == 0).all()
    torch.testing.assert_close(mixed[:, :4], plain[:, :4])
    torch.testing.assert_close(mixed[:, 4:], replaced[:, 4:])


def test_errors_are_of_the_rows_that_are_predicted() -> None:
    """A world that counts by its action is predicted without error, and copying is wrong by k."""

    def step(state: JEPAState, action: Tensor) -> JEPAState:
        return JEPAState(state.latent + action)

    action = torch.tensor([[[1.0], [1.0], [1.0], [5.0]]])
    latent = torch.tensor([[[0.0], [1.0], [2.0], [3.0]]])
    no, yes = torch.zeros(1, 4, dtype=torch.bool), torch.ones(1, 4, dtype=torch.bool)
    rolled = roll_out(step, JEPAState(latent), action, no, yes, 9)
    assert rolled.errors(latent).tolist() == [0, 0, 0] and rolled.copied(latent).tolist() == [1, 4, 9]
    known = torch.tensor([[False, True, True, True]])
    assert [valid.tolist() for valid in roll_out(step, JEPAState(latent), action, no, known, 2).valid] == [
        [[False, True, True]],
        [[False, True]],
    ]
    assert roll_out(step, JEPAState(latent[:, :1]), action[:, :1], no[:, :1], yes[:, :1], 3).states == []


def reached(model: JEPA, value: Tensor) -> set[str]:
    """Return the children of the model whose parameters the gradient of `value` reaches."""
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(value, list(named.values()), allow_unused=True)
    touched = {name for name, grad in zip(named, grads, strict=True) if grad is not None and bool((grad != 0).any())}
    return {name.split(".")[1] if name.startswith("senses") else name.split(".")[0] for name in touched}


@pytest.mark.parametrize("regulariser", ["sigreg", "vicreg", "none"])
def test_heads_and_decoder_do_not_reach_the_encoder(
    regulariser: str, make_batch: Rows, generator: torch.Generator
) -> None:
    model = make("both", regulariser=regulariser)
    rows = make_batch(model, 4, 5)
    states = model.observe(rows).posterior
    states = replace(states, frames=None)
    rolled = roll_out(model.step, states, rows.action, rows.is_first, ~rows.is_first, 3)
    assert reached(model, model._head_loss(rows, states, rolled)[0]) == {"reward_head", "continuation_head"}
    assert reached(model, model._shown_loss(rows, states, generator)[0]) == {"decoders"}
    expected = {"encoders", "projector", "predictor", "reward_head", "continuation_head", "decoders"}
    expected |= {"regulariser"} if regulariser == "vicreg" else set()
    assert reached(model, model.loss(rows, generator).value) == expected


def test_a_frozen_encoder_stays_and_its_predictor_learns(make_batch: Rows, generator: torch.Generator) -> None:
    model = make(frozen_encoder=True)
    rows = make_batch(model, 4, 5)
    model.calibrate(rows.observation)
    before, norm = model.encode(rows.observation), model.projector.norm.mean.clone()
    optimiser = Optimiser(model.parameters(), OptimiserConfig(learning_rate=3e-3, warmup=0))
    missed = []
    for _ in range(12):
        found = model.loss(rows, generator)
        optimiser.step(found.value)
        missed.append(float(found.metrics["prediction"]))
    assert torch.equal(model.encode(rows.observation), before) and torch.equal(model.projector.norm.mean, norm)
    assert missed[-1] < 0.9 * missed[0]


def test_without_a_decoder_nothing_is_shown_and_nothing_learns_to(make_batch: Rows, generator: torch.Generator) -> None:
    model = make("both", decoder=False)
    rows = make_batch(model, 2, 4)
    model.calibrate(rows.observation)
    assert model.shows == frozenset() and "pixels" not in model.senses.decoders
    assert "pixel_nats" not in model.loss(rows, generator).metrics
    with pytest.raises(UserError, match="no decoder"):
        model.decode(model.observe(rows).posterior)


def test_slices_that_begin_inside_an_episode_do_not_predict_from_a_row_without_its_stack(
    make_batch: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Tensor] = []

    def spy(*arguments: Any) -> Any:
        asked.append(arguments[4])
        return roll_out(*arguments)

    monkeypatch.setattr("worldvae.models.jepa.roll_out", spy)
    model = make(stack=2)
    for firsts in ((), (0,)):
        model.loss(make_batch(model, 2, 3, firsts=firsts))
    assert [known[0].tolist() for known in asked] == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize("predictor", ["residual", "gru"])
def test_states_survive_as_tensors_and_weights_with_their_averages(
    predictor: str, make_batch: Rows, generator: torch.Generator
) -> None:
    model = make(predictor=predictor)
    rows = make_batch(model, 2, 3)
    model.loss(rows, generator)
    states = model.observe(rows).posterior
    again = JEPAState.from_tensors(states.tensors())
    assert all(torch.equal(value, again.tensors()[name]) for name, value in states.tensors().items())
    twin = make(predictor=predictor)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.observe(rows).posterior.features, states.features)


def test_states_of_another_model_and_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="give a JEPAState"):
        make().step(wv.VectorState(torch.zeros(1, 6)), torch.zeros(1, 2))
    for name, value in (("latent", 0), ("rollout", 0), ("knots", 1), ("sigreg", -1.0), ("regulariser", "byol")):
        with pytest.raises(ValueError, match=f"jepa.{name}={value}"):
            JEPAConfig(**{name: value})
    with pytest.raises(ValueError, match="is a part of kind=sequential_vae"):
        wv.WorldModelConfig(kind="jepa", prior="mixture")


def test_no_module_that_it_holds_depends_on_a_mode() -> None:
    modes = (nn.Dropout, nn.modules.batchnorm._BatchNorm)
    assert not any(isinstance(module, modes) for module in make("both").modules())
