"""What every test shares: one thread a process, so that workers do not fight for cores, and seeded randomness."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, and by the processes that tests start
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws frames without a screen

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def generator() -> torch.Generator:
    """Return a generator with a fixed seed, for whatever the test draws."""
    return torch.Generator().manual_seed(0)
