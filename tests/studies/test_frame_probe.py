"""The probe reads the true state from real frames, and tells dreams that follow it from those that do not."""

from pathlib import Path

import pytest
import torch

from tests.studies.still_world import knowing, walks
from worldvae.errors import UserError
from worldvae.films.open_loop import OpenLoop, open_loop
from worldvae.studies.frame_probe import FrameProbe, frame_probe_r2, train_frame_probe
from worldvae.types import Batch, Observation

pytestmark = pytest.mark.usefixtures("unchecked")


def bars(episodes: int = 24, time: int = 12) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """Frames of 8 x 8 with a bar whose height is the position; the state is position and velocity."""
    generator = torch.Generator().manual_seed(0)
    start, speed = torch.rand(2, episodes, 1, generator=generator)
    position = 0.4 * start + 0.05 * speed * torch.arange(time)
    height = (8 * position)[..., None] - torch.arange(8)
    frames = (255 * height.clamp(0, 1))[:, :, None, :, None].expand(-1, -1, 1, 8, 8).round().to(torch.uint8)
    none = torch.zeros(episodes, time, dtype=torch.bool)
    rows = Batch(Observation(frames), torch.zeros(episodes, time, 1), torch.zeros(episodes, time), none, none)
    return rows, torch.full((episodes,), time - 1), torch.stack([position, (0.05 * speed).expand(-1, time)], dim=-1)


@pytest.fixture(scope="module")
def probe() -> FrameProbe:
    rows, lengths, truth = bars()
    return train_frame_probe(rows, lengths, truth, updates=200)


def dreamt(guess: torch.Tensor | None = None) -> tuple[OpenLoop, Batch, torch.Tensor]:
    rows, _, truth = bars()
    frames = rows.observation.pixels / 255
    rewards = torch.zeros(len(frames), 8)
    valid = torch.ones_like(rewards, dtype=torch.bool)
    return OpenLoop(4, frames, frames if guess is None else guess, rewards, rewards, valid, True), rows, truth


def test_it_reads_position_and_velocity_from_true_frames(probe: FrameProbe) -> None:
    found = frame_probe_r2(probe, *dreamt())
    assert list(found) == [0, 1, 5]
    assert all(position > 0.95 and velocity > 0.8 for position, velocity in found.values())


def test_a_frozen_dream_loses_the_state(probe: FrameProbe) -> None:
    frozen = dreamt()[0].truth.clone()
    frozen[:, 4:] = frozen[:, 3:4]
    found = frame_probe_r2(probe, *dreamt(frozen), horizons=(0, 8))
    assert found[0][0] > 0.9
    assert found[8][0] < 0.5 and found[8][1] < 0


def test_horizon_one_is_the_first_imagined_row(probe: FrameProbe) -> None:
    blank = dreamt()[0].truth.clone()
    blank[:, 4:] = 0.0
    found = frame_probe_r2(probe, *dreamt(blank), horizons=(0, 1))
    assert found[0][0] > 0.9 > 0 > found[1][0]


def test_the_same_seed_trains_the_same_probe_which_comes_back_from_its_file(probe: FrameProbe, tmp_path: Path) -> None:
    rows, lengths, truth = bars()
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    again = train_frame_probe(rows, lengths, truth, updates=3, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(8)
    same = train_frame_probe(rows, lengths, truth, updates=3, seed=1)
    for name, value in again.state_dict().items():
        assert torch.equal(value, same.state_dict()[name]), name
    probe.save(tmp_path / "new" / "probe.safetensors")
    back = FrameProbe.load(tmp_path / "new" / "probe.safetensors")
    assert frame_probe_r2(back, *dreamt()) == frame_probe_r2(probe, *dreamt())
    (tmp_path / "bad").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is not a probe"):
        FrameProbe.load(tmp_path / "bad")


def test_vectors_are_read_in_the_units_of_the_world() -> None:
    rows, lengths, truth = walks(40, 20)
    probe = train_frame_probe(rows, lengths, truth, updates=300, batch=32)
    dream = open_loop(knowing(), rows, lengths, 4, 10)
    straight = frame_probe_r2(probe, dream, rows, truth, (1, 10))
    scale, offset = torch.tensor([3.0, 0.1]), torch.tensor([5.0, -1.0])
    moved = OpenLoop(
        4, scale * dream.truth + offset, scale * dream.dream + offset, dream.rewards, dream.rewards, dream.valid, False
    )
    shown = frame_probe_r2(probe, moved, rows, truth, (1, 10))
    for horizon, scores in straight.items():
        assert min(scores) > 0.95
        assert shown[horizon] == pytest.approx(scores, abs=1e-3)
    bent = OpenLoop(4, dream.truth**3, dream.dream**3, dream.rewards, dream.rewards, dream.valid, False)
    with pytest.raises(ValueError, match="affine units"):
        frame_probe_r2(probe, bent, rows, truth)
