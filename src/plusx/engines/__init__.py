"""Run a network: one small protocol, one file per backend."""

from plusx.engines.protocol import Engine, Outputs
from plusx.engines.pytorch import TorchEngine

__all__ = ["Engine", "Outputs", "TorchEngine"]
