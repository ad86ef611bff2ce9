"""``plusx serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from plusx.cli.options import Device, Engine

EXAMPLES = """\b
Examples:
  plusx serve runs/photos-1
  plusx serve runs/photos-1/export/model-int8.xml --max-batch 32
  plusx serve birds=runs/birds cats=runs/cats --watch
  plusx serve runs/photos-1 --host 0.0.0.0 --api-key-file keys.txt
"""


def serve(
    models: Annotated[list[str], typer.Argument(help="RUN, or NAME=RUN for several.")],
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8000,
    device: Device = "auto",
    engine: Engine = "auto",
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, bfloat16, float16, or auto: the fastest [default: float32, or what an "
            "exported file holds].",
            show_default=False,
        ),
    ] = None,
    max_batch: Annotated[int, typer.Option(help="Images per forward.")] = 16,
    max_wait_ms: Annotated[float, typer.Option(help="For others to join a batch.")] = 2.0,
    workers: Annotated[int, typer.Option(help="Processes; each has a copy of the model.")] = 1,
    threads: Annotated[
        int,
        typer.Option(help="Cores of a process [default: its share of all].", show_default=False),
    ] = 0,
    watch: Annotated[bool, typer.Option("--watch", help="Serve a changed model at once.")] = False,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys, one a line; or the variable PLUSX_API_KEYS.")
    ] = None,
    cors_origin: Annotated[
        list[str] | None, typer.Option(help="A page's origin that may call from browsers.")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A host name to answer to [default: any; local if so].")
    ] = None,
    log_file: Annotated[Path | None, typer.Option(help="Request lines [default: stderr].")] = None,
    max_body_mib: Annotated[float, typer.Option(help="Of one request.")] = 32.0,
    max_images: Annotated[int, typer.Option(help="In one request.")] = 64,
    max_pixels: Annotated[int, typer.Option(help="Of one image.")] = 64_000_000,
    max_queue: Annotated[int, typer.Option(help="Images waiting; above: 503.")] = 256,
    max_connections: Annotated[int, typer.Option(help="Open at once.")] = 1024,
    max_request_s: Annotated[float, typer.Option(help="From headers to answer.")] = 30.0,
    max_header_s: Annotated[float, typer.Option(help="Until the headers are there.")] = 10.0,
) -> None:
    """Answer over HTTP: a page at /, an API at /v1/predict, its description at /docs."""
    from plusx.errors import MissingExtra
    from plusx.runtime import api_keys

    try:
        from plusx.serve.run import serve as run
    except ImportError as error:
        raise MissingExtra("plusx serve", "serve") from error
    from plusx.serve.keys import digests, read_keys
    from plusx.serve.settings import Limits, Settings, parse_models

    said = api_keys()
    keys = (
        () if said is None else digests([key.strip() for key in said.split(",")], "PLUSX_API_KEYS")
    )
    if api_key_file is not None:
        keys += read_keys(api_key_file)
    settings = Settings(
        models=parse_models(models),
        host=host,
        port=port,
        engine=engine,
        device=device,
        precision=precision,
        threads=threads,
        max_batch=max_batch,
        max_wait_ms=max_wait_ms,
        watch=watch,
        workers=workers,
        keys=keys,
        origins=tuple(cors_origin or ()),
        hosts=tuple(name.lower() for name in allow_host or ()),
        log_file=log_file,
        limits=Limits(
            body_mib=max_body_mib,
            images=max_images,
            pixels=max_pixels,
            queue=max_queue,
            connections=max_connections,
            request_s=max_request_s,
            header_s=max_header_s,
        ),
    )
    if code := run(settings):
        raise typer.Exit(code)
