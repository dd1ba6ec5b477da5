"""Convolutional trunks: every size of frame, padding, cropping, memory formats, and the initial output of zeros."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from worldvae.networks import ConvDecoder, ConvEncoder
from worldvae.networks.conv import PATCH, ChannelNorm

few = settings(max_examples=15, deadline=None)
sizes = st.tuples(st.sampled_from([1, 3]), st.integers(1, 37), st.integers(1, 37))


def awake(module: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return module


@given(shape=sizes, batch=st.lists(st.integers(1, 3), max_size=2), stages=st.integers(0, 2))
@few
def test_any_size_and_any_batch_shape(shape: tuple[int, int, int], batch: list[int], stages: int) -> None:
    encoder, decoder = ConvEncoder(shape, 2, stages), ConvDecoder(5, shape, 2, stages)
    assert encoder(torch.rand(*batch, *shape)).shape == (*batch, encoder.out_features)
    assert decoder(torch.randn(*batch, 5)).shape == (*batch, *shape)


@given(shape=sizes, seed=st.integers(0, 99))
@few
def test_bytes_and_floats_are_the_same_frame(shape: tuple[int, int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randint(0, 256, (2, *shape), generator=generator, dtype=torch.uint8)
    encoder = ConvEncoder(shape, 2)
    assert torch.allclose(encoder(frames), encoder(frames.float() / 255), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(encoder(frames).float(), encoder(frames.float() / 255).float(), atol=2e-2)


def test_height_and_width_are_not_swapped() -> None:
    encoder, decoder = ConvEncoder((1, 16, 48), 2), ConvDecoder(3, (1, 16, 48), 2)
    assert encoder.out_features == 2 * 4 * 1 * 3
    assert decoder.grid == (1, 3)
    assert decoder(torch.randn(2, 3)).shape == (2, 1, 16, 48)


def test_patches_are_squares_of_the_frame() -> None:
    frame = torch.arange(2 * 8 * 12).view(1, 2, 8, 12)
    patches = ConvEncoder((2, 8, 12), 2, stages=0)._patches(frame)
    assert patches.shape == (1, 32, 2, 3)
    expected = frame[0, :, PATCH : 2 * PATCH, 2 * PATCH :]
    assert torch.equal(patches[0, :, 1, 2].view(2, PATCH, PATCH), expected)
    assert torch.equal(F.pixel_unshuffle(frame, PATCH), patches)


def test_padding_adds_nothing_beyond_the_frame() -> None:
    """A frame that equals the centre is all zeros for the layers, including the padding."""
    shape = (3, 5, 7)
    encoder = ConvEncoder(shape, 2)
    seen: list[Tensor] = []
    encoder.layers.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    encoder(torch.full((1, *shape), 0.5))
    encoder(torch.ones(1, *shape))
    assert torch.equal(seen[0], torch.zeros(1, 3 * PATCH**2, 4, 4))
    assert int((seen[1] == 0.5).sum()) == 3 * 5 * 7
    assert int((seen[1] == 0).sum()) == 3 * (16 * 16 - 5 * 7)


def test_the_decoder_crops_the_lower_and_right_border() -> None:
    whole, cut = ConvDecoder(5, (1, 16, 16), 2), ConvDecoder(5, (1, 9, 13), 2)
    awake(whole)
    cut.load_state_dict(whole.state_dict())
    x = torch.randn(2, 5)
    assert torch.equal(cut(x), whole(x)[..., :9, :13])


def test_the_first_painting_is_blank_and_the_second_is_not() -> None:
    decoder = ConvDecoder(5, (3, 10, 20), 4)
    x = torch.randn(6, 5)
    painted = decoder(x)
    assert torch.equal(painted, torch.zeros_like(painted))
    gradient = torch.autograd.grad((painted - 1).square().sum(), list(decoder.parameters()), allow_unused=True)
    assert max(float(g.abs().max()) for g in gradient if g is not None) > 0
    assert float(awake(decoder)(x).detach().std()) > 0


def test_channels_last_is_only_a_layout() -> None:
    shape = (3, 20, 28)
    encoder, decoder = awake(ConvEncoder(shape, 4)), awake(ConvDecoder(5, shape, 4))
    frames, x = torch.rand(3, *shape), torch.randn(3, 5)
    before = encoder(frames), decoder(x)
    for module in (encoder, decoder):
        assert any(p.dim() == 4 and p.is_contiguous(memory_format=torch.channels_last) for p in module.parameters())
        module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        assert all(p.is_contiguous() for p in module.parameters())
    for old, new in zip(before, (encoder(frames), decoder(x)), strict=True):
        assert torch.allclose(old, new, atol=1e-4)


def test_channel_norm_normalises_each_pixel() -> None:
    norm = ChannelNorm(6, eps=1e-3)
    x = 3 * torch.randn(2, 6, 4, 5) + 1
    out = norm(x)
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-3).sqrt()
    assert torch.allclose(out, expected, atol=1e-5)


def test_the_centre_is_subtracted_and_travels_with_the_weights() -> None:
    encoder = awake(ConvEncoder((1, 8, 8), 2))
    frame = torch.rand(1, 1, 8, 8)
    before = encoder(frame)
    encoder.centre += 0.2
    assert not torch.allclose(encoder(frame), before)
    assert torch.allclose(encoder(frame + 0.2), before, atol=1e-4)
    assert "centre" in encoder.state_dict()


@pytest.mark.parametrize("module", [ConvEncoder, ConvDecoder])
def test_the_same_seed_gives_the_same_bits(module: type[nn.Module]) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made = ConvEncoder((1, 8, 8), 2) if module is ConvEncoder else ConvDecoder(3, (1, 8, 8), 2)
        states.append(torch.cat([p.flatten() for p in made.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("size", [(16, 16), (17, 17), (64, 64)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("batch", [1, 5])
def test_frames_may_lie_in_memory_in_any_order(size: tuple[int, int], channels: int, batch: int) -> None:
    """Pictures often have their channels last in memory; for one channel, torch calls any strides contiguous."""
    encoder = ConvEncoder((channels, *size), 4)
    pictures = torch.randint(0, 256, (batch, *size, channels), dtype=torch.uint8)
    frames = pictures.permute(0, 3, 1, 2)
    assert torch.allclose(encoder(frames), encoder(frames.float() / 255), atol=1e-5)
    assert torch.equal(encoder(frames), encoder(frames.clone(memory_format=torch.contiguous_format)))


def test_frames_of_one_channel_may_lie_anyhow_in_memory() -> None:
    torch.manual_seed(0)
    encoder, decoder = ConvEncoder((1, 16, 16), 4), ConvDecoder(5, (1, 16, 16), 4)
    coloured = torch.randint(0, 256, (3, 16, 16, 3), dtype=torch.uint8)
    wide = torch.randint(0, 256, (3, 1, 16, 32), dtype=torch.uint8)
    grey = torch.tensor(7, dtype=torch.uint8)
    for frames in (coloured[..., 0].unsqueeze(1), wide[..., ::2], wide.flatten()[1:769].view(3, 1, 16, 16)):
        assert torch.equal(encoder(frames), encoder(frames.clone(memory_format=torch.contiguous_format)))
    assert torch.equal(encoder(grey.expand(3, 1, 16, 16)), encoder(torch.full((3, 1, 16, 16), 7, dtype=torch.uint8)))
    decoder(torch.randn(3, 5)).sum().backward()  # its gradient is a single expanded number
    assert decoder.layers[-1].bias.grad is not None
