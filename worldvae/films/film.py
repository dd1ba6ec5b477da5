"""Films: frames to .gif, .webp, .mp4 or a contact sheet (.png), and what happened beside dreams of it."""

import importlib
import io
import math
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from worldvae.errors import UserError, near_miss
from worldvae.films.picture import read_channels

SUFFIXES = (".gif", ".webp", ".mp4", ".png")

_TILE_PIXELS = 128  # approximate height in pixels of an enlarged tile
_BORDER, _GAP, _FONT = 3, 6, 13
_EXACT_COLOURS = 16  # number of colours of a GIF that are not averaged
_PAPER, _INK, _TRUE = (24, 24, 28), (232, 232, 236), (96, 96, 104)
_WATCHING, _DREAMING = (64, 190, 110), (232, 72, 72)


def film(path: Path, frames: UInt8[Tensor, "time height width 3"], fps: int = 15, columns: int = 8) -> Path:
    """Write frames in the format that the suffix of `path` names.

    Args:
        path: .gif, .webp (without loss), .mp4 (needs PyAV), or .png: a sheet of `columns` frames side by side.
        frames: The frames, on any device.
        fps: Frames per second.
        columns: Frames on a sheet, evenly spread from the first to the last.

    Raises:
        UserError: The suffix is another one, PyAV is needed and not installed, or the file cannot be written.
    """
    check_film_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_film(path, frames, fps, columns)
    except OSError as error:
        raise UserError(f"cannot write the film {path}: {error.strerror or error}; choose another place.") from error
    return path


def check_film_name(path: Path) -> None:
    """Raise unless `film` can write a film of that name; call it before frames are computed.

    Raises:
        UserError: The suffix is none of `SUFFIXES`.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        hint = near_miss(suffix, SUFFIXES)
        raise UserError(f"cannot write a film as {path.name!r}: the name must end in {', '.join(SUFFIXES)}.{hint}")


def _write_film(path: Path, frames: UInt8[Tensor, "time height width 3"], fps: int, columns: int) -> None:
    suffix = path.suffix.lower()
    if suffix == ".gif":
        path.write_bytes(gif_bytes(frames, fps))
    elif suffix == ".webp":
        first, *rest = (Image.fromarray(frame) for frame in frames.cpu().numpy())
        first.save(path, save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, lossless=True)
    elif suffix == ".mp4":
        _mp4(path, frames, fps)
    else:
        chosen = torch.linspace(0, len(frames) - 1, min(columns, len(frames))).round().long()
        Image.fromarray(torch.cat(list(frames[chosen]), dim=1).cpu().numpy()).save(path)


def gif_bytes(frames: UInt8[Tensor, "time height width 3"], fps: int = 15) -> bytes:
    """Return frames as an animated GIF in an endless loop; all frames share one palette, so that nothing flickers."""
    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette(frames).numpy().tobytes())
    first, *rest = (
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames.cpu().numpy()
    )
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=rest, duration=10 * round(100 / fps), loop=0)
    return file.getvalue()


def side_by_side(
    rows: dict[
        str, Float[Tensor, "batch time channel height width"] | UInt8[Tensor, "batch time channel height width"]
    ],
    context: int,
    error: bool = True,
    scale: int | None = None,
) -> UInt8[Tensor, "time filmheight filmwidth 3"]:
    """Compose a labelled film: a column for each episode, a row for what happened and for each dream of it.

    The frames of dreams have a green border while the model observes frames, and a red one while it dreams.

    Args:
        rows: Frames by label, floats in 0..1 or bytes; the first are those that happened. `worldvae.films.picture`
            describes how their channels are shown.
        context: Number of frames that the model observed before the dream begins.
        error: Add the absolute error below each dream, averaged over the channels of an image, from black over red to
            white.
        scale: Enlargement of each pixel; by default, frames become about 128 pixels high.
    """
    truth, *_ = units = [_unit(frames) for frames in rows.values()]
    reading = read_channels(truth)
    shown: list[tuple[str, Tensor, bool]] = []
    for i, (label, frames) in enumerate(zip(rows, units, strict=True)):
        shown.append((label, reading.picture(frames), i > 0))
        if error and i > 0:
            shown.append(("error", _heat(reading.error(frames, truth)), True))
    batch, time, height, width, _ = shown[0][1].shape
    repeat = scale if scale is not None else max(1, round(_TILE_PIXELS / min(height, width)))
    gutter = max(int(_font().getlength(label)) for label, _, _ in shown) + 3 * _GAP
    strip = _FONT + 2 * _GAP
    step_x, step_y = width * repeat + 2 * _BORDER + _GAP, height * repeat + 2 * _BORDER + _GAP
    page_width = max(gutter + batch * step_x, int(_font().getlength(_caption(time, context, time))) + 2 * _GAP)
    pages = torch.empty(time, strip + len(shown) * step_y, page_width, 3, dtype=torch.uint8)
    pages[:] = torch.tensor(_PAPER, dtype=torch.uint8)
    for t in range(time):
        pages[t] = _write(pages[t], _caption(t, context, time), (_GAP, _GAP), _DREAMING if t >= context else _WATCHING)
    for i, (label, frames, dreamt) in enumerate(shown):
        band = pages[:, strip + i * step_y : strip + (i + 1) * step_y]
        band[:] = _write(band[0], label, (_GAP, (step_y - _GAP - _FONT) // 2), _INK)
        large = (255 * frames).round().to(torch.uint8).cpu()
        large = large.repeat_interleave(repeat, dim=2).repeat_interleave(repeat, dim=3)
        for b in range(batch):
            tile = band[:, : step_y - _GAP, gutter + b * step_x : gutter + (b + 1) * step_x - _GAP]
            tile[:context] = torch.tensor(_WATCHING if dreamt else _TRUE, dtype=torch.uint8)
            tile[context:] = torch.tensor(_DREAMING if dreamt else _TRUE, dtype=torch.uint8)
            tile[:, _BORDER:-_BORDER, _BORDER:-_BORDER] = large[b]
    return pages


def towards_goals(
    goals: UInt8[Tensor, "batch channel height width"],
    played: UInt8[Tensor, "batch time channel height width"],
    arrived: Bool[Tensor, "batch time"],
) -> UInt8[Tensor, "time filmheight filmwidth 3"]:
    """Compose a film of played episodes below their goals: a column per goal, with a green border once it is reached.

    Args:
        goals: Frames. `worldvae.films.picture` describes how their channels are shown.
        played: Frames before the first decision and after each.
        arrived: Whether the goal was reached by then.
    """
    reading = read_channels(played)
    below, above = (reading.picture(_unit(frames)) for frames in (played, goals))
    batch, time, height, width, _ = below.shape
    repeat = max(1, round(_TILE_PIXELS / min(height, width)))
    gutter, strip = int(_font().getlength("played")) + 3 * _GAP, _FONT + 2 * _GAP
    step_x, step_y = width * repeat + 2 * _BORDER + _GAP, height * repeat + 2 * _BORDER + _GAP
    pages = torch.empty(time, strip + 2 * step_y, gutter + batch * step_x, 3, dtype=torch.uint8)
    pages[:] = torch.tensor(_PAPER, dtype=torch.uint8)
    borders = torch.where(arrived[..., None], torch.tensor(_WATCHING), torch.tensor(_TRUE)).to(torch.uint8)
    for t in range(time):
        pages[t] = _write(pages[t], f"decision {t} of {time - 1}", (_GAP, _GAP), _INK)
    for i, (label, frames) in enumerate({"goal": above.unsqueeze(1).expand_as(below), "played": below}.items()):
        band = pages[:, strip + i * step_y : strip + (i + 1) * step_y]
        for t in range(time):
            band[t] = _write(band[t], label, (_GAP, (step_y - _GAP - _FONT) // 2), _INK)
        large = (255 * frames).round().to(torch.uint8)
        large = large.repeat_interleave(repeat, dim=2).repeat_interleave(repeat, dim=3)
        for b in range(batch):
            tile = band[:, : step_y - _GAP, gutter + b * step_x : gutter + (b + 1) * step_x - _GAP]
            tile[:] = borders[b, :, None, None] if i else torch.tensor(_TRUE, dtype=torch.uint8)
            tile[:, _BORDER:-_BORDER, _BORDER:-_BORDER] = large[b]
    return pages


def _caption(t: int, context: int, time: int) -> str:
    if t < context:
        return f"sees frame {t + 1} of {context}"
    return f"dreams step {t + 1 - context} of {time - context}"


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=_FONT)


def _write(
    image: UInt8[Tensor, "height width 3"], text: str, at: tuple[int, int], colour: tuple[int, int, int]
) -> UInt8[Tensor, "height width 3"]:
    canvas = Image.fromarray(image.numpy())
    ImageDraw.Draw(canvas).text(at, text, fill=colour, font=_font())
    return torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8).reshape(image.shape)


def _unit(frames: Shaped[Tensor, "*frames"]) -> Float[Tensor, "*frames"]:
    return frames.float() / 255 if frames.dtype == torch.uint8 else frames.float().clamp(0, 1)


def _heat(value: Float[Tensor, "*frames height width"]) -> Float[Tensor, "*frames height width 3"]:
    return torch.stack([3 * value, 3 * value - 1, 3 * value - 2], dim=-1).clamp(0, 1)


def _palette(frames: UInt8[Tensor, "time height width 3"]) -> UInt8[Tensor, "colours 3"]:
    """Return at most 256 colours for all frames.

    Colours are counted in 32^3 boxes, and a box stands for the mean of its colours. If more than 256 boxes are in use,
    the most frequent ones (paper, borders, plain backgrounds) keep their colours, and median cut chooses colours for
    the others. It counts each box 1 + log2(count) times, not `count` times, so that a line one pixel thin keeps its
    colour beside a background of thousands.
    """
    pixels = frames.reshape(-1, 3).cpu().long()
    box = (pixels[:, 0] >> 3 << 10) | (pixels[:, 1] >> 3 << 5) | (pixels[:, 2] >> 3)
    count = torch.bincount(box, minlength=2**15)
    total = torch.stack([torch.bincount(box, pixels[:, c].double(), minlength=2**15) for c in range(3)], dim=-1)
    used = count.argsort(descending=True)[: int((count > 0).sum())]
    colours = (total[used] / count[used, None]).round().to(torch.uint8)
    if len(colours) <= 256:
        return colours
    plain, others = colours[:_EXACT_COLOURS], colours[_EXACT_COLOURS:]
    weighted = others.repeat_interleave(1 + count[used[_EXACT_COLOURS:]].double().log2().long(), dim=0)
    few = Image.fromarray(weighted[None].numpy()).quantize(256 - _EXACT_COLOURS, Image.Quantize.MEDIANCUT, kmeans=1)
    return torch.cat([plain, torch.tensor(few.getpalette(), dtype=torch.uint8).reshape(-1, 3)])


def _mp4(path: Path, frames: UInt8[Tensor, "time height width 3"], fps: int) -> None:
    try:
        av = importlib.import_module("av")
    except ModuleNotFoundError as error:
        raise UserError(
            f"an .mp4 film needs PyAV: pip install 'worldvae[video]', or name the film {path.stem}.gif."
        ) from error
    _, height, width, _ = frames.shape
    even = torch.zeros(len(frames), 2 * math.ceil(height / 2), 2 * math.ceil(width / 2), 3, dtype=torch.uint8)
    even[:, :height, :width] = frames.cpu()  # H.264 stores colour for every other pixel only
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
        for frame in even.numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
