import io
import sys

import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from worldvae.errors import UserError
from worldvae.films.film import film, gif_bytes, side_by_side, towards_goals

GREEN, RED, GREY = (64, 190, 110), (232, 72, 72), (96, 96, 104)


def frames_of(source: io.BytesIO | str) -> Tensor:
    with Image.open(source) as image:
        pages = [
            torch.frombuffer(bytearray(p.convert("RGB").tobytes()), dtype=torch.uint8)
            for p in ImageSequence.Iterator(image)
        ]
        return torch.stack(pages).reshape(-1, image.height, image.width, 3)


def noise(time: int = 6, height: int = 20, width: int = 30) -> Tensor:
    return torch.randint(
        0, 256, (time, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def gradient_with_a_thin_line(time: int = 8) -> Tensor:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    frames = torch.stack([3 * y, 3 * x, 40 + 2 * y], dim=-1).to(torch.uint8).repeat(time, 1, 1, 1)
    for t in range(time):
        frames[t, 5 * t + 3] = torch.tensor([255, 20, 230], dtype=torch.uint8)
    return frames


def test_gif_has_all_frames_at_their_pace() -> None:
    data = gif_bytes(noise(), fps=10)
    assert frames_of(io.BytesIO(data)).shape == (6, 20, 30, 3)
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["duration"] == 100 and image.info["loop"] == 0


def test_a_gif_of_few_colours_is_exact() -> None:
    colours = torch.tensor([[0, 0, 0], [255, 255, 255], [24, 24, 28], [232, 72, 72]], dtype=torch.uint8)
    frames = colours[torch.randint(0, 4, (5, 12, 12), generator=torch.Generator().manual_seed(0))]
    assert torch.equal(frames_of(io.BytesIO(gif_bytes(frames))), frames)


def test_a_thin_line_survives_the_palette() -> None:
    frames = gradient_with_a_thin_line()
    error = (frames_of(io.BytesIO(gif_bytes(frames))).int() - frames.int()).abs().float()
    line = (frames == torch.tensor([255, 20, 230])).all(-1)
    assert error[line].mean() < 10
    assert error.mean() < 6


def test_webp_is_exact(tmp_path) -> None:
    path = film(tmp_path / "deep" / "a.webp", noise())
    assert torch.equal(frames_of(str(path)), noise())


def test_png_is_a_sheet_from_first_to_last(tmp_path) -> None:
    path = film(tmp_path / "a.png", noise(time=7), columns=3)
    sheet = frames_of(str(path))[0]
    assert torch.equal(sheet, torch.cat(list(noise(time=7)[[0, 3, 6]]), dim=1))


def test_mp4(tmp_path) -> None:
    av = pytest.importorskip("av")
    path = film(tmp_path / "a.mp4", gradient_with_a_thin_line()[:, :33, :31], fps=20)
    with av.open(str(path)) as container:
        pages = [page.to_ndarray(format="rgb24") for page in container.decode(video=0)]
    assert len(pages) == 8 and pages[0].shape == (34, 32, 3)


def test_mp4_without_pyav(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r"pip install 'worldvae\[video\]'"):
        film(tmp_path / "a.mp4", noise())


def test_unknown_suffix(tmp_path) -> None:
    with pytest.raises(UserError, match=r"must end in .gif, .webp, .mp4, .png. Did you mean '.gif'\?"):
        film(tmp_path / "a.giff", noise())


@pytest.mark.parametrize("channels", [1, 3])
def test_side_by_side_shows_the_frames_and_the_end_of_the_context(channels) -> None:
    g = torch.Generator().manual_seed(0)
    true = torch.rand(2, 5, channels, 8, 10, generator=g)
    dream = torch.rand(2, 5, channels, 8, 10, generator=g)
    pages = side_by_side({"true": true, "dream": dream}, context=2, scale=4)
    tall, wide, border, gap = 4 * 8, 4 * 10, 3, 6
    bottom, right = pages.shape[1] - gap, pages.shape[2] - gap
    rows = [bottom - tall - 2 * border - k * (tall + 2 * border + gap) for k in (2, 1, 0)]
    left = right - wide - 2 * border
    for t in range(5):
        expected = [true[1, t], dream[1, t]]
        for top, frame in zip(rows, expected, strict=False):
            tile = pages[t, top + border : top + border + tall, left + border : left + border + wide]
            large = (255 * frame).round().to(torch.uint8).expand(3, -1, -1).movedim(0, -1)
            assert torch.equal(tile[::4, ::4], large) and torch.equal(tile[3::4, 3::4], large)
        assert tuple(pages[t, rows[0], left].tolist()) == GREY
        for top in rows[1:]:
            assert tuple(pages[t, top, left].tolist()) == (GREEN if t < 2 else RED)
    assert not torch.equal(pages[3, : rows[0]], pages[4, : rows[0]])  # the counter changes


def test_side_by_side_of_bytes_and_without_error() -> None:
    same = torch.full((1, 3, 1, 28, 28), 255, dtype=torch.uint8)
    with_error = side_by_side({"true": same, "dream": same}, context=1)
    without = side_by_side({"true": same, "dream": same}, context=1, error=False)
    assert with_error.shape[1] - without.shape[1] == 28 * 5 + 2 * 3 + 6
    assert bool((with_error[:, -20, -60] == 0).all())  # an error of 0 is black
    assert bool((without[:, -20, -60] == 255).all())


@pytest.mark.parametrize("channels", range(1, 13))
@pytest.mark.parametrize("error", [True, False])
def test_frames_of_any_number_of_channels_are_filmed(channels, error) -> None:
    """Even if no frame changes, so that only the number of channels is known."""
    rows = {"true": torch.zeros(1, 2, channels, 8, 8), "dream": torch.ones(1, 2, channels, 8, 8)}
    pages = side_by_side(rows, context=1, error=error)
    assert pages.shape[0] == 2 and pages.shape[-1] == 3
    assert side_by_side({"true": rows["true"]}, context=1).shape[0] == 2


def test_the_error_row_shows_what_a_mean_would_hide() -> None:
    truth = torch.full((1, 2, 2, 8, 8), 0.5)
    dream = truth + torch.tensor([0.5, -0.5]).view(2, 1, 1)
    page = side_by_side({"true": truth, "dream": dream}, context=1, scale=1)[1]
    orange = torch.tensor([255, 128, 0], dtype=torch.uint8)  # an error of 0.5, halfway from black to white
    assert (page == orange).all(-1).sum() == 8 * 8


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_goals_of_any_number_of_channels_are_filmed(channels) -> None:
    g = torch.Generator().manual_seed(0)
    goals, played = (
        torch.randint(0, 256, shape, generator=g, dtype=torch.uint8)
        for shape in ((2, channels, 8, 8), (2, 3, channels, 8, 8))
    )
    pages = towards_goals(goals, played, torch.tensor([[False, True, True]] * 2))
    assert pages.shape[0] == 3
    assert not torch.equal(pages[0], pages[1])
