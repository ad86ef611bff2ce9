"""A network whose weights all come from a file is not drawn at random first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWS = ("normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_")


class Undrawn(TorchFunctionMode):
    """While it is entered, what would be filled at random stays as the memory was.

    Only for a network all of whose parameters are then loaded: half the time that ResNet-50 takes
    to be made goes into numbers that are thrown away.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            filled: Tensor = kwargs["tensor"] if "tensor" in kwargs else args[0]
            return filled
        return func(*args, **kwargs)
