"""Start and stop: one process, or several behind one socket."""

from __future__ import annotations

import logging
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from plusx.errors import PlusxError, UsageError
from plusx.runtime import allow_open_files, share_metrics
from plusx.serve.connections import Impatient
from plusx.serve.guard import Guard
from plusx.serve.settings import Settings

SPARE_FILES = 256
"""Open files beside connections: libraries, models, logs, decoders' pipes."""


class Quiet(uvicorn.Server):
    """Ends with code 0 when it was asked to end; uvicorn's own raises the signal once more."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See uvicorn."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def serve(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; what was accepted by then is still answered.

    Returns:
        The exit code: 0, or 2 where no process could start.

    Raises:
        PlusxError: the address is taken, or a model cannot be loaded.
    """
    needed = settings.limits.connections + SPARE_FILES
    if (allowed := allow_open_files(needed)) < needed:
        print(
            f"note: the system lets a process open {allowed} files, {needed} may be needed; "
            "raise it (ulimit -n), or lower --max-connections",
            file=sys.stderr,
        )
    listening = _bind(settings)
    try:
        if settings.workers == 1:
            from plusx.serve.app import create_app

            config = _config(settings, create_app(settings))
            _greet(settings, listening)
            Quiet(config).run(sockets=[listening])
            return 0
        with tempfile.TemporaryDirectory(prefix="plusx-metrics-") as folder:
            share_metrics(Path(folder))
            shared = replace(settings, metrics_folder=Path(folder))
            config = _config(shared, partial(_worker, shared), workers=settings.workers)
            _greet(settings, listening)
            supervisor = Multiprocess(config, sockets=[listening])
            supervisor.run()
            ended = [process.exitcode for process in supervisor.processes]
            return 2 if STARTUP_FAILURE in ended else 0
    finally:
        listening.close()


def _worker(settings: Settings) -> Guard:
    """The application of one of several processes; a model that cannot be loaded ends them all."""
    from plusx.serve.app import create_app

    try:
        return create_app(settings)
    except PlusxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(STARTUP_FAILURE)  # the others are not started again and again


def _config(settings: Settings, app: object, *, workers: int = 1) -> uvicorn.Config:
    limits = settings.limits
    logging.getLogger("uvicorn").addHandler(logging.NullHandler())
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        factory=workers > 1,
        host=settings.host,
        port=settings.port,
        workers=workers,
        http=partial(  # type: ignore[arg-type]
            Impatient,
            header_s=limits.header_s,
            taken_s=limits.request_s,
            most=limits.connections,
        ),
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_worker_healthcheck=30,
        timeout_keep_alive=int(limits.keep_alive_s) or 1,
        timeout_graceful_shutdown=int(limits.request_s) + 1,
        h11_max_incomplete_event_size=16 * 1024,
    )


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise _taken(settings, error) from error
    listening.set_inheritable(True)
    return listening


def _taken(settings: Settings, error: Exception) -> UsageError:
    return UsageError(
        f"--host {settings.host} --port {settings.port}: cannot be bound: {error}; choose "
        "another (--port 0 takes a free one)"
    )


def _greet(settings: Settings, listening: socket.socket) -> None:
    try:
        listening.listen(2048)  # from here on nobody is turned away
    except OSError as error:  # another took the address meanwhile
        raise _taken(settings, error) from error
    port = listening.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else host
    print(
        f"serving {', '.join(settings.models)} at http://{shown}:{port}  (Ctrl-C stops)", flush=True
    )
    if not settings.is_local and not settings.keys:
        print(f"note: everybody who reaches {settings.host} may use it: there is no --api-key-file",
              file=sys.stderr)  # fmt: skip
