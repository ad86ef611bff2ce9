"""Peak memory of a network on an engine, each measured in a process of its own."""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_CODE = (
    "import json, sys; asked = json.loads(sys.argv[1]); sys.path[:] = asked.pop('path'); "
    "from plusx.jobs.bench_memory import measure; print(json.dumps(measure(**asked)))"
)


def peak_memory(
    word: str, engine: str, precision: str, batches: Sequence[int], *, device: str
) -> dict[int, float]:
    """Batch -> MiB that the process held at most while it ran such batches, above what it held
    with the libraries loaded and no network; the network's weights count. Empty where the system
    does not say, or the process failed.

    Args:
        word: what to run, as for ``plusx bench``.
        engine: its name.
        precision: as ``plusx.jobs.bench_engines`` has it.
        batches: sizes.
        device: of torch.
    """
    asked = {"word": word, "engine": engine, "precision": precision, "device": device,
             "batches": sorted(batches), "path": sys.path}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _CODE, json.dumps(asked)], capture_output=True, text=True
    )
    if done.returncode != 0:
        return {}
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {int(batch): mib for batch, mib in found.items()}


def measure(
    word: str, engine: str, precision: str, batches: list[int], device: str
) -> dict[int, float]:
    """What ``peak_memory`` asks its process for; here the network is run, in this one."""
    from plusx.jobs.bench_subjects import find_subject

    subject = find_subject(word)
    subject.load_libraries(engine)
    before = _mib("VmRSS")
    if before is None:
        return {}
    run = subject.prepare(engine, precision, device=device)
    found = {}
    for batch in batches:
        images = subject.images(batch)
        run(images)  # the first call may compile
        _forget_peak()
        for _ in range(3):
            run(images)
        peak = _mib("VmHWM")
        if peak is not None:
            found[batch] = max(0.0, peak - before)
    return found


def _forget_peak() -> None:
    """Give back what loading needed, and start the high-water mark anew, so that it is not counted
    (malloc_trim(3); proc(5), clear_refs)."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:  # a container may forbid it: then the peak is that of loading and running
        return


def _mib(field: str) -> float | None:
    """A figure of this process, in MiB; Linux alone tells the peak since it started."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return None
