"""Counters for Prometheus, one set a process; several processes share theirs through a folder."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Counters:
    """What a server counts.

    Args:
        shared: the folder where processes share their numbers (its name must stand in
            ``PROMETHEUS_MULTIPROC_DIR`` before this module is imported); None for one process.
    """

    def __init__(self, shared: Path | None = None) -> None:
        own = CollectorRegistry()
        self._shared, self._own = shared, own
        self.requests = Counter(
            "plusx_requests", "Requests answered.", ("path", "status"), registry=own
        )
        self.seconds = Histogram(
            "plusx_request_seconds", "From a request's headers to its answer.", ("path",),
            buckets=_SECONDS, registry=own,
        )  # fmt: skip
        self.images = Counter("plusx_images", "Images by outcome.", ("outcome",), registry=own)
        self.batches = Histogram(
            "plusx_batch_images", "Images of a forward.", ("model",), buckets=_BATCHES,
            registry=own,
        )  # fmt: skip
        self.network = Histogram(
            "plusx_network_seconds", "Seconds of a forward.", ("model",), buckets=_SECONDS,
            registry=own,
        )  # fmt: skip
        self.waiting = Gauge(
            "plusx_queue_images", "Images waiting or being worked on.", registry=own,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.reloads = Counter(
            "plusx_reloads", "Changed models by outcome.", ("outcome",), registry=own
        )

    def text(self) -> bytes:
        """The exposition format, of all processes."""
        if self._shared is None:
            return generate_latest(self._own)
        for file in self._shared.glob("gauge_live*_*.db"):  # what a killed process held is free
            if (
                not Path("/proc", file.stem.rpartition("_")[2]).exists()
                and Path("/proc/1").exists()
            ):
                file.unlink(missing_ok=True)
        joined = CollectorRegistry()
        MultiProcessCollector(joined, str(self._shared))  # type: ignore[no-untyped-call]
        return generate_latest(joined)
