"""plusx: residual networks for image recognition.

>>> import plusx
>>> run = plusx.train("photos/")                                   # doctest: +SKIP
>>> plusx.load("runs/photos-1").predict("x.jpg")                   # doctest: +SKIP
>>> net = plusx.create("resnet50", classes=3, weights="none")      # doctest: +SKIP

``import plusx`` loads no torch: the names below are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from plusx._version import __version__

if TYPE_CHECKING:
    from plusx.client import Client
    from plusx.data.preprocessing import Preprocessing
    from plusx.errors import PlusxError
    from plusx.evaluate.predictions import Predictions
    from plusx.jobs.audit import Audit, scan
    from plusx.jobs.bench import bench
    from plusx.jobs.choose import choose
    from plusx.jobs.import_weights import import_weights
    from plusx.jobs.run import Run, load
    from plusx.jobs.slim import slim
    from plusx.jobs.train import resume, train
    from plusx.model import ResNet, ResNetSpec, surgery, variant
    from plusx.predict import Prediction, Predictor
    from plusx.weights import create

_HOME = {
    "Audit": "plusx.jobs.audit",
    "Client": "plusx.client",
    "PlusxError": "plusx.errors",
    "Prediction": "plusx.predict",
    "Predictions": "plusx.evaluate.predictions",
    "Predictor": "plusx.predict",
    "Preprocessing": "plusx.data.preprocessing",
    "ResNet": "plusx.model",
    "ResNetSpec": "plusx.model",
    "Run": "plusx.jobs.run",
    "bench": "plusx.jobs.bench",
    "choose": "plusx.jobs.choose",
    "create": "plusx.weights",
    "import_weights": "plusx.jobs.import_weights",
    "load": "plusx.jobs.run",
    "resume": "plusx.jobs.train",
    "scan": "plusx.jobs.audit",
    "slim": "plusx.jobs.slim",
    "surgery": "plusx.model",
    "train": "plusx.jobs.train",
    "variant": "plusx.model",
}

__all__ = [
    "Audit",
    "Client",
    "PlusxError",
    "Prediction",
    "Predictions",
    "Predictor",
    "Preprocessing",
    "ResNet",
    "ResNetSpec",
    "Run",
    "__version__",
    "bench",
    "choose",
    "create",
    "import_weights",
    "load",
    "resume",
    "scan",
    "slim",
    "surgery",
    "train",
    "variant",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'plusx' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
