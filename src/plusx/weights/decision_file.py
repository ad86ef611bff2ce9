"""The decision of an artifact: values in config.json, features of training images beside it.

``decision.safetensors`` holds one array, ``bank`` (M, D) float16; its SHA-256 stands among the
values. A model without unknown images has no such file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from plusx.atomic import replacing
from plusx.decide import Decision
from plusx.errors import ArtifactError, UsageError
from plusx.model.classifier import Spec
from plusx.weights.files import sha256_file

DECISION = "decision.safetensors"
_HASH = "arrays_sha256"
_REMEDY = "copy the model folder again as a whole"


def save_bank(folder: Path, decision: Decision) -> dict[str, Any]:
    """Write the features, if there are some; gives the values for config.json.

    Raises:
        OSError, SafetensorError: they cannot be written.
    """
    values = decision.to_dict()
    if decision.unknown is not None and decision.unknown.bank is not None:
        with replacing(folder / DECISION) as beside:
            save_file({"bank": decision.unknown.bank}, beside)
            values[_HASH] = sha256_file(beside)
    return values


def verify_bank(values: Mapping[str, Any], config: Path) -> Path | None:
    """The file of features beside ``config``, which must be the one that its decision was written
    for; None where there is none.

    Raises:
        ArtifactError: it is another, or cannot be read.
    """
    wanted, path = values.get(_HASH), config.parent / DECISION
    if wanted is None:
        return None
    try:
        digest = sha256_file(path)
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read: {error.strerror}; {_REMEDY}") from error
    if digest != wanted:
        raise ArtifactError(
            f"{path}: is not the file that {config.name} was written for (SHA-256 "
            f"{digest[:12]}... instead of {str(wanted)[:12]}...); {_REMEDY}"
        )
    return path


def read_decision(values: Any, spec: Spec, config: Path) -> Decision:
    """The decision for a network, from the values in ``config`` and the file beside it.

    Raises:
        ArtifactError: they are damaged, of a later plusx, or not of this network.
    """
    if not isinstance(values, Mapping):
        raise ArtifactError(f"{config}: its decision is no JSON object; {_REMEDY}")
    path = verify_bank(values, config)
    bank = None if path is None else _bank(path)
    plain = {key: value for key, value in values.items() if key != _HASH}
    try:
        decision = Decision.from_dict(plain, spec.classes, bank=bank)
    except UsageError as error:
        raise ArtifactError(f"{config}: its decision cannot be used: {error}") from error
    if bank is not None and bank.shape[1:] != (spec.feature_channels,):
        raise ArtifactError(
            f"{path}: has features {bank.shape} for a network that gives {spec.feature_channels}; "
            + _REMEDY
        )
    return decision


def _bank(path: Path) -> npt.NDArray[np.float16]:
    try:
        return load_file(path)["bank"].astype(np.float16)
    except (OSError, SafetensorError, KeyError) as error:
        raise ArtifactError(f"{path}: holds no features ({error}); {_REMEDY}") from error
