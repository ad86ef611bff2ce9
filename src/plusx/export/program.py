"""A pipeline as a ``torch.export`` program: what the files of every format are made from."""

from __future__ import annotations

import torch
from torch.export import Dim, ExportedProgram

from plusx.errors import UsageError
from plusx.export.graph import Pipeline
from plusx.weights.exported import IMAGES


def to_program(pipeline: Pipeline, images: torch.Tensor, *, name: str) -> ExportedProgram:
    """Trace a pipeline: the batch is dynamic, and with uint8 images their height and width.

    ``Dim.DYNAMIC`` raises where a network fixes a size, so that no file is made that takes
    batches of one length only.

    Args:
        pipeline: in evaluation mode.
        images: an example batch of 2.
        name: of the network, for complaints.

    Raises:
        UsageError: torch.export cannot follow the network.
    """
    free = (0,) if pipeline.prepare is None else (0, 1, 2)
    dims = dict.fromkeys(free, Dim.DYNAMIC)
    try:
        with torch.no_grad():
            return torch.export.export(
                pipeline.eval(), (images,), dynamic_shapes={IMAGES: dims}, strict=False
            )
    except Exception as error:  # whatever a foreign network makes the tracer stumble over
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(f"{name} cannot be exported: torch.export says: {said[0]}") from error
