"""Trunks without any probability in them."""

from worldvae.networks.conv import ConvDecoder, ConvEncoder
from worldvae.networks.denoiser import Denoiser
from worldvae.networks.haste import by_haste, hasten
from worldvae.networks.mlp import MLP, BypassedMLP, JointMLP, perceptron
from worldvae.networks.recurrent import BlockGRUCell
from worldvae.networks.strided import TRUNKS, StridedDecoder, StridedEncoder

__all__ = [
    "MLP",
    "TRUNKS",
    "BlockGRUCell",
    "BypassedMLP",
    "ConvDecoder",
    "ConvEncoder",
    "Denoiser",
    "JointMLP",
    "StridedDecoder",
    "StridedEncoder",
    "by_haste",
    "hasten",
    "perceptron",
]
