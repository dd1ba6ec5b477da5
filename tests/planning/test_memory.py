"""Planning with frames as states: the memory of a thousand candidates stays small."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from worldvae.models.kind_sections import PixelDiffusionConfig
from worldvae.models.parts import WorldModelConfig
from worldvae.models.pixel_diffusion import PixelDiffusion
from worldvae.types import ActionLayout, ObservationLayout, State

numbers = PixelDiffusionConfig(steps=1, widths=(8, 8))
config = WorldModelConfig(
    kind="pixel_diffusion", size="tiny", depth=4, hidden=16, precision="float32", pixel_diffusion=numbers
)
model = PixelDiffusion(ObservationLayout(pixels=(3, 64, 64)), ActionLayout(1), config)
with torch.no_grad():
    start = model.initial(1)
    many = State.cat([start] * 1000, dim=0)
    dream = model.imagine(many, torch.zeros(1000, 12, 1), generator=torch.Generator().manual_seed(0), last_only=True)
assert dream.states.features.shape[:2] == (1000, 1) and dream.rewards.shape == (1000, 12)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_thousand_candidates_of_twelve_frames_need_less_than_two_gigabytes() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2.0
