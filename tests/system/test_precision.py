"""The choice between float32 and bfloat16: measured once, stored with the run, and used by everything that imagines."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

import worldvae as wv
from worldvae.config import load_config
from worldvae.errors import UserError
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.planning import CEMConfig, discounted_return
from worldvae.runs.run import create
from worldvae.runs.settings import RunConfig
from worldvae.system import precision
from worldvae.system.precision import faster_precision
from worldvae.types import ActionLayout, Batch, ObservationLayout

CPU = torch.device("cpu")
SHAPE = (16, (4, 8, 8))


@pytest.fixture
def no_memory_of_it() -> Iterator[None]:
    faster_precision.cache_clear()
    yield
    faster_precision.cache_clear()


@pytest.mark.parametrize(
    ("share", "chosen"), [(0.4, "bfloat16"), (0.97, "float32"), (1.0, "float32"), (5.0, "float32")]
)
def test_what_takes_clearly_less_time_is_chosen(
    share: float, chosen: str, no_memory_of_it: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_bfloat16_share", lambda works: share)
    assert faster_precision(CPU, *SHAPE) == chosen


def test_it_is_measured_once_on_one_thread(no_memory_of_it: None, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def share(works: list[Callable[[bool], None]]) -> float:
        for work in works:
            work(False)
            work(True)
        threads.append(torch.get_num_threads())
        return 2.0

    monkeypatch.setattr(precision, "_bfloat16_share", share)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert {faster_precision(CPU, *SHAPE) for _ in range(3)} == {"float32"}
        assert torch.get_num_threads() == 2 and threads == [1]
    finally:
        torch.set_num_threads(before)


def test_the_fastest_turn_of_each_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, calls=0)
    fake = SimpleNamespace(thread_time=lambda: clock.now, get_clock_info=lambda _: SimpleNamespace(resolution=1e-9))
    monkeypatch.setattr(precision, "time", fake)

    def work(narrow: bool) -> None:
        clock.calls += 1
        late = 0.01 if clock.calls in (3, 6) else 0.0  # something else was running
        clock.now += late + (0.006 if narrow else 0.003)

    assert precision._bfloat16_share([work]) == pytest.approx(2.0)


def test_it_can_be_measured_anywhere(no_memory_of_it: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In inference mode, with another default type, and on a system with a coarse clock."""
    monkeypatch.setattr(precision, "MEASURE_SECONDS", 0.001)
    monkeypatch.setattr(precision, "MAX_CLOCK_RESOLUTION", 0.0)
    try:
        torch.set_default_dtype(torch.float64)
        with torch.inference_mode():
            assert faster_precision(CPU, *SHAPE) in ("float32", "bfloat16")
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_accelerator_is_not_measured(no_memory_of_it: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_bfloat16_share", lambda works: pytest.fail("measured"))
    for supported, chosen in ((True, "bfloat16"), (False, "float32")):
        faster_precision.cache_clear()
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, found=supported: found)
        assert faster_precision(torch.device("cuda"), *SHAPE) == chosen


def test_a_run_keeps_what_was_chosen_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(RunConfig, [{"env": {"id": "none"}}], ["model.size=tiny"])
    assert config.model.precision == "auto" and config.train.behaviour == "auto"
    layouts = ObservationLayout((3, 16, 16)), ActionLayout(1)
    monkeypatch.setattr("worldvae.models.parts.faster_precision", lambda *_: "bfloat16")
    run = create(tmp_path / "run", config, *layouts)
    assert run.config.model.precision == run.model.precision == "bfloat16"
    monkeypatch.setattr("worldvae.models.parts.faster_precision", lambda *_: pytest.fail("chosen anew"))
    kept = load_config(RunConfig, [tmp_path / "run" / "config.yaml"])
    assert kept == run.config and kept.train.behaviour in ("inline", "process")


def test_the_word_of_earlier_versions_is_answered() -> None:
    with pytest.raises(UserError, match=r"model\.bfloat16 does not exist any more: give model\.precision=auto"):
        load_config(RunConfig, [{"env": {"id": "none"}}], ["model.bfloat16=false"])


@pytest.mark.parametrize("chosen", ["float32", "bfloat16"])
def test_everything_that_imagines_uses_the_models_precision(
    chosen: str, make_model: Callable[..., SequentialVAE], make_batch: Callable[..., Batch]
) -> None:
    model = make_model(precision=chosen)
    state = model.observe(make_batch(model, 2, 3), mode=True).posterior[:, -1]
    seen: list[torch.dtype] = []
    model.reward_head.register_forward_pre_hook(lambda module, inputs: seen.append(torch.is_autocast_enabled("cpu")))
    config = CEMConfig(horizon=3, candidates=8, elites=2, iterations=2)
    objective = partial(discounted_return, discount=0.9)

    def plan() -> Tensor:
        with torch.no_grad():
            return wv.plan(model, state, objective, config, torch.Generator().manual_seed(0)).actions

    alone = plan()
    assert set(seen) == {chosen == "bfloat16"}
    with model.autocast():  # like an agent that learns
        assert torch.equal(plan(), alone)


def test_imagining_is_stepping_in_bfloat16_too(
    make_model: Callable[..., SequentialVAE], generator: torch.Generator
) -> None:
    model = make_model(precision="bfloat16")
    actions = torch.rand(2, 4, 2, generator=generator) * 2 - 1
    noise = model.noise((4, 2), generator)
    dream = model.imagine(model.initial(2), actions, noise=noise)
    state = model.initial(2)
    for t in range(4):
        state = model.step(state, actions[:, t], noise[t])
        assert torch.equal(state.latent, dream.states.latent[:, t]) and state.latent.dtype == torch.float32
