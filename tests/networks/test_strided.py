"""The trunks of the literature: shapes, sizes, and the properties stated in each paper."""

import pytest
import torch

from worldvae.networks import TRUNKS, StridedDecoder, StridedEncoder


@pytest.mark.parametrize("name", ["strided", "pooled"])
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 20, 33)])
def test_any_frame_is_encoded_and_painted(name: str, shape: tuple[int, int, int]) -> None:
    trunk = TRUNKS[name]
    encoder, decoder = StridedEncoder(shape, 4, trunk), StridedDecoder(6, shape, 4, trunk)
    frames = torch.randint(0, 256, (2, 3, *shape), dtype=torch.uint8)
    assert encoder(frames).shape == (2, 3, encoder.out_features)
    assert torch.allclose(encoder(frames), encoder(frames.float() / 255), atol=1e-5)
    assert torch.equal(decoder(torch.randn(2, 3, 6)), torch.zeros(2, 3, *shape))  # initially zero


def test_planet_is_as_published() -> None:
    shape = (3, 64, 64)
    encoder, decoder = (StridedEncoder(shape, 32, TRUNKS["planet"]), StridedDecoder(230, shape, 32, TRUNKS["planet"]))
    assert encoder.out_features == 1024
    convolutions = sum(k**2 * a * b + b for k, a, b in ((4, 3, 32), (4, 32, 64), (4, 64, 128), (4, 128, 256)))
    assert sum(p.numel() for p in encoder.parameters()) == convolutions
    published = 230 * 1024 + 1024 + sum(k**2 * a * b + b for k, a, b in ((5, 128, 64), (6, 64, 32), (6, 32, 3)))
    first = 1024 * 128 * 25 + 128 * 25  # with one bias per entry
    assert sum(p.numel() for p in decoder.parameters()) == published + first
    assert decoder(torch.randn(2, 230)).shape == (2, *shape)
    with pytest.raises(ValueError, match="frames of 64 x 64 only, not 32 x 64"):
        StridedDecoder(8, (3, 32, 64), 4, TRUNKS["planet"])


@pytest.mark.parametrize("name", sorted(TRUNKS))
def test_gradients_reach_every_parameter(name: str) -> None:
    shape = (3, 64, 64)
    encoder, decoder = StridedEncoder(shape, 2, TRUNKS[name]), StridedDecoder(4, shape, 2, TRUNKS[name])
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    painted = decoder(encoder(torch.rand(2, *shape))[:, :4])
    painted.square().sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in [*encoder.parameters(), *decoder.parameters()])
