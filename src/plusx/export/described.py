"""What stands in an exported file beside the network, for plusx and for anyone else."""

from __future__ import annotations

import json

from plusx._version import __version__
from plusx.export.targets import TARGETS
from plusx.weights.artifact import Artifact
from plusx.weights.exported import KEY, ExportMetadata, Format, Precision
from plusx.weights.seal import BLANK, SEAL


def metadata_of(
    artifact: Artifact, *, name: str, precision: Precision, preprocessed: bool
) -> ExportMetadata:
    """What the file says for plusx to read."""
    return ExportMetadata(
        classes=artifact.classes,
        task=artifact.task,
        preprocessing=artifact.preprocessing,
        preprocessed=preprocessed,
        decision=artifact.decision.to_dict(),
        parent=artifact.sha256,
        name=name,
        precision=precision,
        plusx=__version__,
    )


def plain_keys(metadata: ExportMetadata, to: Format) -> dict[str, str]:
    """All keys and values of the file: the same in words and JSON for programs without plusx.

    The seal comes last (``plusx.weights.seal``).
    """
    used = metadata.preprocessing
    if metadata.preprocessed:
        wanted = (
            f"images: (N, {used.channels}, {used.size}, {used.size}) float32, preprocessed: "
            f"{used.mode} side to {used.resize} ({used.interpolation}, antialiased), centre crop "
            f"{used.size}, (x / 255 - mean) / std, mean {list(used.mean)}, std {list(used.std)}"
        )
    else:
        kind = "float32 on the scale 0..255" if used.takes_floats else "uint8"
        order = "RGB" if used.channels == 3 and not used.takes_floats else "as trained"
        wanted = (
            f"images: (N, H, W, {used.channels}) {kind}, channels {order}, any N, H and W; "
            "resize, crop and normalisation are in the graph"
        )
    outputs = (
        "probabilities: (N, K) calibrated, in the order of classes; logits: (N, K); features: "
        "(N, D)"
    )
    if "unknown" in metadata.decision:
        limit = metadata.decision["unknown"]["threshold"]
        outputs += f"; unknown_score: (N,), an image above {limit:.6g} is like none trained on"
    return {
        "classes": json.dumps(list(metadata.classes), ensure_ascii=False),
        "input": wanted,
        "outputs": outputs,
        "precision": f"{metadata.precision}: {TARGETS[to].precisions[metadata.precision]}",
        "decision": json.dumps(metadata.decision),
        KEY: metadata.to_json(),
        SEAL: BLANK,
    }
