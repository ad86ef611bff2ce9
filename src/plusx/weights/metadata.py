"""What a ``.safetensors`` file says of itself: one key of its metadata, in config.json's words.

The header of such a file holds a map of texts. Under ``plusx`` stands the JSON of a config.json as
``plusx.weights.artifact`` writes it: architecture, classes, and the section that names network (the
stride of v1 or v1.5 included), preprocessing and task. So one file is a model, and nothing is
guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from plusx.errors import WeightsError

KEY = "plusx"


def with_config(config: Mapping[str, Any]) -> dict[str, str]:
    """The metadata for ``safetensors.torch.save_file`` that holds ``config``."""
    return {"format": "pt", KEY: json.dumps(config, ensure_ascii=False)}


def read_stated(path: Path) -> dict[str, Any] | None:
    """The config that a ``.safetensors`` file holds; None where it holds none.

    Raises:
        WeightsError: the file cannot be read, or what it holds is no JSON object.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{path}: is truncated or not a safetensors file ({error}); download or export it again"
        ) from error
    if text is None:
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"{path}: its {KEY!r} metadata is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path}: its {KEY!r} metadata is no JSON object")
    return config
