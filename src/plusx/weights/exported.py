"""What an exported file says about itself: everything from image to decision but the weights.

The same JSON text travels in every format: under ``plusx`` in an ONNX file's ``metadata_props``,
in OpenVINO's ``rt_info``, and as an extra file of a ``torch.export`` archive.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from plusx.data.preprocessing import Preprocessing
from plusx.data.records import Task
from plusx.errors import ArtifactError, UsageError

EXPORT_VERSION = 1
KEY = "plusx"
EXPORT = "export"
"""The folder of a run that its exported files lie in."""

Format = Literal["onnx", "openvino", "torch"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]

IMAGES = "images"
"""Input: (N, H, W, C) uint8, any N, one size a batch; or (N, C, S, S) float32, preprocessed."""
PREPROCESSED = "preprocessed"
"""Inner tensor (N, C, S, S) float32 where preprocessing ends and the network begins."""
OUTPUTS = ("probabilities", "logits", "features")
"""(N, K) calibrated, (N, K), (N, D). With unknown images, ``unknown_score`` (N,) follows."""
UNKNOWN_SCORE = "unknown_score"


@dataclass(frozen=True)
class ExportMetadata:
    """What stands in the file.

    Attributes:
        classes: K names, in the order of the logits.
        task: ``single`` or ``multi``.
        preprocessing: image to network input.
        preprocessed: whether the graph leaves that to its user (``--no-preprocessing``).
        decision: ``Decision.to_dict()``; the bank of the unknown score stands in the graph.
        parent: SHA-256 of the ``model.safetensors`` that the file was made from.
        name: of that run.
        precision: of weights and activations.
        plusx: the version that wrote it.
    """

    classes: tuple[str, ...]
    task: Task
    preprocessing: Preprocessing
    preprocessed: bool
    decision: dict[str, Any]
    parent: str
    name: str
    precision: Precision
    plusx: str

    def to_json(self) -> str:
        """One line of ASCII."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["classes"] = list(self.classes)
        plain["preprocessing"] = self.preprocessing.to_dict()
        return json.dumps({"export_version": EXPORT_VERSION} | plain)

    @classmethod
    def from_json(cls, text: str, source: str) -> ExportMetadata:
        """The reverse; ``source`` names the file in complaints.

        Raises:
            ArtifactError: the text is damaged, or of a later plusx.
        """
        try:
            plain = json.loads(text)
            version = plain.pop("export_version")
            if version != EXPORT_VERSION:
                raise ArtifactError(
                    f"{source}: written by a newer plusx (export_version {version!r}, this one "
                    f"reads {EXPORT_VERSION}); update plusx, or export again"
                )
            plain["classes"] = tuple(str(name) for name in plain["classes"])
            plain["preprocessing"] = Preprocessing.from_dict(plain["preprocessing"])
            found = cls(**plain)
            known = found.precision in get_args(Precision) and found.task in get_args(Task)
            if not (known and isinstance(found.decision, dict) and found.classes):
                raise ValueError("a value is not one that plusx writes")
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise ArtifactError(
                f"{source}: what it says about itself is damaged ({error}); export it again"
            ) from error
        return found
