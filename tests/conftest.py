"""Fixtures and settings of all tests: one thread per process, because tests run in parallel, and fixed seeds."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch reads it at import, and so do processes of tests
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws frames without a screen

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import settings
from torch import Tensor

from worldvae.models.parts import WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.objectives import ELBOConfig
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a slow test on a busy machine is not a failure
settings.load_profile("untimed")


@pytest.hookimpl(trylast=True)  # after the tests to run have been selected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest gates (`gate(seconds=...)`) first, and divide their time equally between the two processes.

    Each process starts at the beginning of one half of the list; when it has finished, it takes tests from the end of
    the other half.
    """

    def seconds(item: pytest.Item) -> float:
        gate = item.get_closest_marker("gate")
        return float(gate.kwargs.get("seconds", 0)) if gate else 0.0

    processes: tuple[list[pytest.Item], list[pytest.Item]] = [], []
    for item in sorted(filter(seconds, items), key=seconds, reverse=True):
        min(processes, key=lambda own: sum(map(seconds, own))).append(item)
    first, second = processes
    rest = [item for item in items if not seconds(item)]
    half = len(items) // 2 - len(first)
    items[:] = [*first, *rest[:half], *second, *rest[half:]]


@pytest.fixture(autouse=True)
def _seed() -> None:
    """Seed torch's default generator, from which modules draw their initial weights."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _float32() -> Iterator[None]:
    """Let "auto" mean float32 without a measurement, so that a test computes the same on every machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldvae.models.parts.faster_precision", lambda *_: "float32")
        yield


@pytest.fixture(scope="module")
def unchecked() -> Iterator[None]:
    """Switch the checks of types and shapes off for a file: code that other tests check then takes half of the time.

    (Mistakes of users then also get as far as they do for users, who have no such checks.)
    """
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def generator() -> torch.Generator:
    """Return a generator with a fixed seed for the draws of a test."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def make_model() -> Callable[..., SequentialVAE]:
    """Return a function that makes tiny world models in float32, whose heads and decoders do not start at zero."""

    def make(
        pixels: tuple[int, int, int] | None = (1, 8, 12),
        vector: int | None = None,
        action: ActionLayout | None = None,
        *,
        seed: int = 0,
        awake: bool = True,
        objective: ELBOConfig | None = None,
        **config: Any,
    ) -> SequentialVAE:
        numbers = {"memory_size": 16, "hidden": 16, "depth": 4, "gaussian": 4, "groups": 3, "classes": 4, "bins": 41}
        settings = WorldModelConfig(**{"size": "tiny", "precision": "float32", **numbers, **config})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            layout = ObservationLayout(pixels, vector)
            model = SequentialVAE(layout, action or ActionLayout(continuous=2), settings, objective)
            for parameter in model.parameters() if awake else ():
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """Return a function that makes random rows for a model; episodes begin at the time steps `firsts`."""

    def make(model: SequentialVAE, size: int, length: int, *, seed: int = 0, firsts: tuple[int, ...] = (0,)) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        layout, action = model.observation_layout, model.action_layout
        pixels: Tensor | None = None
        if layout.pixels is not None:
            shape = (size, length, *layout.pixels)
            pixels = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        vector = None if layout.vector is None else torch.randn(size, length, layout.vector, generator=generator)
        first = torch.zeros(size, length, dtype=torch.bool)
        first[:, list(firsts)] = True
        return Batch(
            Observation(pixels, vector),
            torch.rand(size, length, action.size, generator=generator) * 2 - 1,
            torch.randn(size, length, generator=generator),
            torch.rand(size, length, generator=generator) < 0.2,
            first,
        )

    return make


@pytest.fixture(scope="session")
def feed_noise() -> Callable[[SequentialVAE, list[Tensor]], None]:
    """Return a function that makes a model use given latent noise (`[time, batch, noise]`, one entry per call)."""

    def feed(model: SequentialVAE, queue: list[Tensor]) -> None:
        def noise(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None) -> Tensor:
            drawn = queue.pop(0)
            assert drawn.shape[:-1] == shape
            return drawn

        model.family.noise = noise  # type: ignore[method-assign]

    return feed
