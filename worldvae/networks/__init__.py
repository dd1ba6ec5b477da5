"""Trunks without any probability in them."""

from worldvae.networks.conv import ConvDecoder, ConvEncoder
from worldvae.networks.mlp import MLP
from worldvae.networks.recurrent import BlockGRUCell

__all__ = ["MLP", "BlockGRUCell", "ConvDecoder", "ConvEncoder"]
