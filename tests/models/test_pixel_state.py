"""The last frames as a state: windows at the borders of episodes, in parts, packed and unpacked."""

import pytest
import torch

from tests.next_frame import KINDS_OF_FRAMES, PIXELS, VECTOR, make, rows
from worldvae.models.pixel_state import PixelState
from worldvae.types import ObservationLayout, VectorState


def test_the_window_of_every_row() -> None:
    """Row t holds frames t - 2 .. t; before an episode's first frame stand copies of it, and actions of zeros."""
    model = make("pixel_diffusion")
    batch = rows(model, 2, 7, firsts=(0, 4))
    window = PixelState.of(model.observe(batch).posterior).window
    frames, action = batch.observation.pixels.flatten(-3), batch.action
    for t, start in enumerate([0, 0, 0, 0, 4, 4, 4]):
        for k, at in enumerate(range(t - 2, t + 1)):
            assert torch.equal(window.frames[:, t, k], frames[:, max(at, start)])
            expected = action[:, at - 1] if at > start else torch.zeros(2, 2)
            assert torch.equal(window.actions[:, t, k], expected)


@pytest.mark.parametrize("layout", [PIXELS, VECTOR])
@pytest.mark.parametrize("firsts", [(0,), (2, 5), ()])
def test_in_two_parts_as_at_once(layout: ObservationLayout, firsts: tuple[int, ...]) -> None:
    model = make("pixel_diffusion", layout)
    batch = rows(model, 3, 8, firsts=firsts)
    whole = model.observe(batch).posterior
    for cut in (1, 2, 5):
        first = model.observe(batch[:, :cut]).posterior
        rest = model.observe(batch[:, cut:], first[:, -1], batch.action[:, cut - 1]).posterior
        for name, tensor in rest.tensors().items():
            torch.testing.assert_close(tensor, whole[:, cut:].tensors()[name])
    again = model.observe(batch, model.initial(3)).posterior
    assert all(torch.equal(x, whole.tensors()[name]) for name, x in again.tensors().items())


def test_what_is_before_an_episode_does_not_matter() -> None:
    model = make("pixel_energy")
    batch, other = rows(model, 2, 6, firsts=(0, 3)), rows(model, 2, 6, firsts=(0, 3), seed=1)
    mixed = type(batch).cat([other[:, :3], batch[:, 3:]], dim=1)
    found, expected = (model.observe(x).posterior[:, 3:].tensors() for x in (mixed, batch))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("layout", [PIXELS, VECTOR])
def test_a_state_is_packed_and_unpacked(layout: ObservationLayout) -> None:
    model = make("pixel_diffusion", layout)
    states = model.observe(rows(model, 2, 4)).posterior
    packed = states.tensors()
    assert set(packed) == {"window/frames", "window/actions", "embedding", "seen"}
    assert packed["window/frames"].dtype == (torch.uint8 if layout.pixels else torch.float32)
    again = PixelState.from_tensors(packed)
    assert torch.equal(again.features, states.features) and torch.equal(again.last, states.last)
    assert again.float().window.frames.dtype == packed["window/frames"].dtype
    assert model.initial(8).tensors().keys() == packed.keys()


def test_the_state_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match="state is a VectorState, but the last frames are needed"):
        make("pixel_diffusion").decode(VectorState(torch.zeros(2, 3)))


@pytest.mark.parametrize("kind", KINDS_OF_FRAMES)
def test_both_modalities_at_once_are_refused(kind: str) -> None:
    for layout in (ObservationLayout((1, 8, 8), 3), ObservationLayout()):
        with pytest.raises(ValueError, match=r"give env\.obs=pixels or env\.obs=state"):
            make(kind, layout)
