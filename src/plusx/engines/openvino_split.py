"""A frozen trunk on OpenVINO, the blocks after it on torch."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from plusx.engines.choose import BOUNDS, difference
from plusx.engines.convert import ACTIVATION, POOLED, trunk_to_openvino
from plusx.engines.openvino import compiled
from plusx.engines.protocol import Outputs
from plusx.engines.pytorch import TorchEngine
from plusx.errors import PlusxError
from plusx.model.classifier import Classifier

if TYPE_CHECKING:
    import openvino


class TrunkRefused(PlusxError):
    """OpenVINO cannot take the trunk, or answers otherwise than torch does."""


class OpenVINOSplit:
    """See ``plusx.engines.split``. The trunk is converted when it is first run, which takes seconds
    (2.9 s for ResNet-50): where all activations are kept from before, it never is. Its first batch
    must be what torch gives in float32, within ``BOUNDS``.

    Args:
        model: the network; it is copied.
        dtype: float32, or bfloat16 where :func:`plusx.engines.openvino.has_bfloat16`.
        top_blocks: how many last blocks ``trunk`` leaves to ``top``.
    """

    device = torch.device("cpu")

    def __init__(self, model: Classifier, *, dtype: torch.dtype, top_blocks: int) -> None:
        self.dtype = dtype
        self._model, self._top_blocks = model, top_blocks
        self._torch = TorchEngine(model, device=self.device, dtype=dtype, top_blocks=top_blocks)
        self._trusted = False

    def trunk(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """See ``SplitEngine``.

        Raises:
            TrunkRefused: OpenVINO cannot take the trunk, or answers otherwise.
        """
        request = self._request
        request.infer([np.ascontiguousarray(images.numpy())], share_inputs=True)
        found = np.array(request.get_tensor(ACTIVATION).data, np.float32)
        pooled = torch.zeros(len(images), 0)
        if self._pools:
            pooled = torch.from_numpy(np.array(request.get_tensor(POOLED).data, np.float32))
        if not self._trusted:
            self._check(images, found)
        activation = torch.from_numpy(found).to(self.dtype)
        return activation.contiguous(memory_format=torch.channels_last), pooled

    def top(self, activation: Tensor, pooled: Tensor) -> Outputs:
        """See ``SplitEngine``."""
        return self._torch.top(activation, pooled)

    def _check(self, images: Tensor, found: np.ndarray) -> None:
        exact = TorchEngine(self._model, device=self.device, top_blocks=self._top_blocks)
        wanted = exact.trunk(images)[0].numpy()
        precision = str(self.dtype).removeprefix("torch.")
        if (off := difference(found, wanted)) > BOUNDS[precision]:
            raise TrunkRefused(f"its activations in {precision} are {off:.1%} off")
        self._trusted = True

    @cached_property
    def _pools(self) -> bool:
        return self._torch.pools

    @cached_property
    def _request(self) -> openvino.InferRequest:
        try:
            model = trunk_to_openvino(self._model, self._top_blocks, pools=self._pools)
            ready = compiled(model, bfloat16=self.dtype == torch.bfloat16, streams=1)
        except Exception as error:  # whatever a foreign network makes a converter stumble over
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise TrunkRefused(said) from error
        return ready.create_infer_request()
