"""What a server says about a model it serves."""

from __future__ import annotations

import platform
from typing import Any

import torch

from plusx._version import __version__
from plusx.serve.served import Served


def card_of(served: Served, trouble: str | None) -> dict[str, Any]:
    """``plusx.serve.schema.Card`` of a model."""
    predictor = served.predictor
    return {
        "name": served.name,
        "task": predictor.task,
        "classes": list(predictor.classes),
        "preprocessing": predictor.preprocessing.to_dict(),
        "decides": predictor.decision.to_dict(),
        "engine": served.engine.name,
        "precision": served.engine.precision,
        "figures": served.figures,
        "versions": {
            "plusx": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "trouble": trouble,
    }
