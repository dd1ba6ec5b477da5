"""Deterministic networks: perceptrons, convolutions, recurrent cells, norms and the optimiser."""

from worldvae.networks.conv import ConvDecoder, ConvEncoder
from worldvae.networks.denoiser import Denoiser
from worldvae.networks.lr_scale import by_lr_scale, scale_learning_rate
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
    "by_lr_scale",
    "perceptron",
    "scale_learning_rate",
]
