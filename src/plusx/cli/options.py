"""Options that several verbs have, each declared once."""

from __future__ import annotations

from typing import Annotated

import typer

Bands = Annotated[str | None, typer.Option(help="Bands of TIFF files, from 1, in order: 4,3,2.")]
Range = Annotated[
    str | None, typer.Option(help="What becomes 0 and 1: LOW,HIGH, or a pair for each band.")
]
Depth = Annotated[
    str, typer.Option(help="Of deep grey images: full-range, or window (0.5 to 99.5%).")
]
Background = Annotated[
    str, typer.Option(help="Of transparent images: white, grey, black or #rrggbb.")
]
MaxPixels = Annotated[
    int | None, typer.Option(help="Images with more are refused [default: 178,956,970].")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda[:N] or mps.")]
Engine = Annotated[
    str, typer.Option(help="torch, onnxruntime, openvino, or auto: the fastest installed.")
]
Precision = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16, float16, or auto: the fastest [default: float32, or a file's]."
    ),
]
TrainPrecision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
BatchSize = Annotated[
    int | None, typer.Option(min=1, help="Images per forward [default: 8 on a CPU, else 64].")
]
Threads = Annotated[int | None, typer.Option(min=1, help="For decoding [default: one a core].")]
