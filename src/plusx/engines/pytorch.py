"""The torch engine: BatchNorm folded, channels last, in the precision asked for."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from plusx.engines.protocol import EngineName, Outputs
from plusx.model.classifier import Classifier
from plusx.model.surgery import fold_batchnorm, split_trunk


class TorchEngine:
    """Runs a copy of ``model``; later changes to ``model`` do not reach it.

    Args:
        model: the network.
        device: where to run.
        dtype: of weights and activations; pooling and head always run in float32.
        top_blocks: how many last blocks ``trunk`` leaves to ``top``.
    """

    name: EngineName = "torch"

    def __init__(
        self,
        model: Classifier,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        top_blocks: int = 0,
    ) -> None:
        folded = fold_batchnorm(model).to(device=device, dtype=dtype)
        folded = folded.to(memory_format=torch.channels_last)
        folded.head.float()
        self.device, self.dtype = device, dtype
        self.precision = str(dtype).removeprefix("torch.")
        self.parallel = device.type == "cpu"
        self._trunk, self._top = split_trunk(folded, top_blocks)

    @property
    def pools(self) -> bool:
        """Whether the trunk gives pooled features too: the network has several feature stages, and
        one of them ends before the split."""
        return self._trunk.pools

    @torch.no_grad()  # not inference_mode: what comes out may be trained on
    def trunk(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) float32 -> activation (N, C', H', W') in ``dtype``, pooled features (N, P).

        Both stay on the engine's device.
        """
        images = images.to(self.device, self.dtype, memory_format=torch.channels_last)
        activation, pooled = self._trunk(images)
        return activation, pooled

    @torch.inference_mode()
    def top(self, activation: Tensor, pooled: Tensor) -> Outputs:
        """What ``trunk`` gave -> outputs."""
        features = self._top.features(activation, pooled)
        return Outputs(self._top.head(features).cpu().numpy(), features.cpu().numpy())

    def run(self, images: npt.NDArray[Any], *, one_core: bool = False) -> Outputs:
        """Preprocessed images (N, C, H, W) float32 -> their outputs.

        ``one_core`` changes nothing: torch works on as many cores as the calling thread is set to,
        one in ``map_ordered``'s threads.
        """
        return self.top(*self.trunk(torch.from_numpy(images)))
