"""Deterministic networks: perceptrons, convolutions, recurrent cells, norms and the optimiser."""

from worldvae.networks.conv import ConvDecoder, ConvEncoder
from worldvae.networks.denoiser import Denoiser
from worldvae.networks.haste import by_haste, hasten
from worldvae.networks.mlp import MLP, PERCEPTRONS, BypassedMLP, JointMLP, PerceptronKind, perceptron
from worldvae.networks.norm import LayerNorm
from worldvae.networks.recurrent import BlockGRUCell, GRUCell
from worldvae.networks.strided import TRUNKS, StridedDecoder, StridedEncoder

__all__ = [
    "MLP",
    "PERCEPTRONS",
    "TRUNKS",
    "BlockGRUCell",
    "BypassedMLP",
    "ConvDecoder",
    "ConvEncoder",
    "Denoiser",
    "GRUCell",
    "JointMLP",
    "LayerNorm",
    "PerceptronKind",
    "StridedDecoder",
    "StridedEncoder",
    "by_haste",
    "hasten",
    "perceptron",
]
