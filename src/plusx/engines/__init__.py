"""Run a network: one small protocol, one file per backend."""

from plusx.engines.protocol import Engine, EngineName, Outputs
from plusx.engines.pytorch import TorchEngine

__all__ = ["Engine", "EngineName", "Outputs", "TorchEngine"]
