"""Everything that a server is told, resolved once; every limit and its default stand here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from plusx.errors import UsageError

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Limits:
    """What one server takes before it says no.

    Attributes:
        body_mib: of one request's body; above: 413.
        bodies_mib: of all bodies that are being received or decoded; above: 503.
        images: in one request; above: 413.
        pixels: width times height of an image; above: an error for that image.
        queue: images that wait or are being worked on; above: 503 with Retry-After.
        connections: open at once; further ones are closed.
        header_s: seconds until a connection has sent a request's headers, else it is closed.
        request_s: seconds from a request's headers to its answer; above: 408 while the body is
            still coming, else 503.
        keep_alive_s: seconds that an idle connection stays open after an answer.
        explained: images of one request that get a heat map.
        explaining: heat maps that wait or are being made; further images get none.
    """

    body_mib: float = 32.0
    bodies_mib: float = 512.0
    images: int = 64
    pixels: int = 64_000_000
    queue: int = 256
    connections: int = 1024
    header_s: float = 10.0
    request_s: float = 30.0
    keep_alive_s: float = 15.0
    explained: int = 4
    explaining: int = 16

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            if not 0 < value < math.inf:
                name = item.name.replace("_", "-")
                raise UsageError(f"--max-{name} {value!r} must be above 0")

    @property
    def body_bytes(self) -> int:
        """Of one request's body."""
        return int(self.body_mib * 2**20)

    @property
    def bodies_bytes(self) -> int:
        """Of all bodies at once; at least one of the largest."""
        return max(int(self.bodies_mib * 2**20), self.body_bytes)

    @property
    def request_images(self) -> int:
        """In one request: more than the queue holds would never be answered."""
        return min(self.images, self.queue)


@dataclass(frozen=True)
class Settings:
    """One server.

    Attributes:
        models: name -> run folder, model folder or exported file; the first is the default one.
        host: address to bind.
        port: 0 lets the system choose.
        engine: as ``Predictor`` has it.
        precision: as ``Predictor`` has it.
        device: as ``Predictor`` has it.
        threads: cores for this process's network and, as many again, for decoding; 0 is its share
            of all.
        max_batch: images per forward.
        max_wait_ms: how long the first image of a batch waits for others.
        watch: whether to look for changed models.
        workers: processes.
        keys: SHA-256 hex digests of the API keys; none lets everybody in.
        origins: that a browser may call from, beside the server's own page.
        hosts: names that the server answers to; none for any.
        log_file: of request lines; None for stderr.
        metrics_folder: where several processes share their counters.
        limits: what is refused.

    Raises:
        UsageError: a value is impossible.
    """

    models: Mapping[str, Path]
    host: str = "127.0.0.1"
    port: int = 8000
    engine: str = "auto"
    precision: str | None = None
    device: str = "auto"
    threads: int = 0
    max_batch: int = 16
    max_wait_ms: float = 2.0
    watch: bool = False
    workers: int = 1
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    log_file: Path | None = None
    metrics_folder: Path | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("nothing to serve: give a run, or NAME=RUN")
        for name, least in (("max_batch", 1), ("workers", 1), ("port", 0), ("threads", 0)):
            if getattr(self, name) < least:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {getattr(self, name)} must be at least {least}")
        if self.port > 65_535:
            raise UsageError(f"--port {self.port} must be at most 65535")
        if not 0 <= self.max_wait_ms < math.inf:
            raise UsageError(f"--max-wait-ms {self.max_wait_ms} must be at least 0")
        for origin in self.origins:
            if not origin.startswith(("http://", "https://")) or "*" in origin:
                raise UsageError(
                    f"--cors-origin {origin!r} must be an origin, as https://a.example"
                )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in LOCAL_HOSTS

    @property
    def answered_hosts(self) -> tuple[str, ...]:
        """Names in ``Host`` that are answered; empty for any. On a local address others are
        refused, so that no page from elsewhere can reach the server by a name that its owner
        points here (DNS rebinding)."""
        return self.hosts or (LOCAL_HOSTS if self.is_local else ())


def parse_models(given: list[str]) -> dict[str, Path]:
    """``RUN`` or ``NAME=RUN`` each -> name -> path; a single unnamed run is called ``default``.

    Raises:
        UsageError: a name twice, an unnamed one among several, or nothing at a path.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = "default", text
            if len(given) > 1:
                raise UsageError(f"{text}: one of several models needs a name: NAME={text}")
        if not name or not all(c.isalnum() or c in "-_." for c in name):
            raise UsageError(f"{text}: name {name!r} may hold letters, digits, '-', '_' and '.'")
        if name in found:
            raise UsageError(f"{text}: the name {name!r} is given twice")
        if not Path(path).exists():
            raise UsageError(f"{path}: is not there; give a run folder, or an exported file")
        found[name] = Path(path)
    return found
