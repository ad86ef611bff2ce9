"""Device, precision, seeds, processes: the only file that reads the environment."""

from __future__ import annotations

import os
import platform
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plusx.errors import UsageError

if TYPE_CHECKING:
    import torch  # loaded where it is needed: a scan needs none

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class World:
    """Which process this is among how many (as ``torchrun`` states it).

    Attributes:
        rank: of this process, from 0.
        size: number of processes.
        local_rank: among those of this machine.
        local_size: number of those.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """True for the one process that writes files and talks to the user."""
        return self.rank == 0


def world() -> World:
    """Rank and world size from the environment; one process where it says nothing.

    Raises:
        UsageError: a variable is no whole number.
    """
    usual = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    found = {name: os.environ.get(name, value) for name, value in usual.items()}
    for name, text in found.items():
        if not (text.isascii() and text.isdigit()):
            raise UsageError(
                f"environment variable {name}={text!r} must be a whole number; unset it for one "
                "process"
            )
    size = int(found["WORLD_SIZE"])
    if size <= 1:
        return World()
    local = int(found["LOCAL_RANK"]), int(found["LOCAL_WORLD_SIZE"])
    return World(int(found["RANK"]), size, *local)


def has_launcher() -> bool:
    """Whether the environment says where the processes of a training meet, as torchrun sets it."""
    return "MASTER_ADDR" in os.environ and "MASTER_PORT" in os.environ


def resolve_device(name: str = "auto") -> torch.device:
    """Turn ``auto | cpu | cuda[:i] | mps`` into a device that is really there.

    Of several processes on one machine each takes a GPU of its own.

    Raises:
        UsageError: the device is unknown or absent.
    """
    import torch

    here = world()
    if here.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
        name = f"cuda:{here.local_rank}"
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name!r} is not one of auto, cpu, cuda[:N], mps") from error
    number = device.index or 0
    present = {"cpu": True, "cuda": number < torch.cuda.device_count(),
               "mps": torch.backends.mps.is_available()}  # fmt: skip
    if not present.get(device.type, False):
        raise UsageError(f"--device {name!r} is not available on this machine; use --device cpu")
    return device


def fast_dtype(device: torch.device) -> torch.dtype:
    """The fastest dtype whose range equals float32's: bfloat16 where it is native, else float32."""
    import torch

    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float32
    # Builds without oneDNN (macOS on ARM) lack the operator that is asked here.
    if device.type == "cpu" and torch._C._has_mkldnn:
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.float32


def forward_batch(device: torch.device) -> int:
    """Images per forward where nothing is asked for. On CPUs activations should stay in the cache:
    ResNet-18 on 2 Zen 4 cores ran 131 images/s at 8 against 99 at 32 (bfloat16)."""
    return 8 if device.type == "cpu" else 64


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn ``auto | float32 | bfloat16 | float16`` into a dtype.

    Raises:
        UsageError: the name is unknown.
    """
    import torch

    if name == "auto":
        return fast_dtype(device)
    if name not in PRECISIONS:
        raise UsageError(f"--precision {name!r} is not one of auto, {', '.join(PRECISIONS)}")
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices)."""
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (libraries we call may use the global generator)
    torch.manual_seed(seed)


def without_telemetry() -> None:
    """Keep NNCF, which has no other switch, from reporting its use over the network."""
    os.environ.setdefault("NNCF_CI", "1")


def cpu_count() -> int:
    """Cores this process may use (its affinity, not the machine's total)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The processor's name; its kind decides on the last bits of what torch computes."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # another system than Linux
        pass
    return platform.processor() or platform.machine()


def cache_folder() -> Path:
    """Where this user's programs keep what can be made again; plusx's own folder in it.

    ``PLUSX_CACHE``, or as the systems say: freedesktop.org's XDG base directories, Apple's and
    Microsoft's guides.
    """
    if said := os.environ.get("PLUSX_CACHE"):
        return Path(said)
    home = Path.home()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local") / "plusx" / "Cache"
    usual = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or usual) / "plusx"


def cache_gib() -> float:
    """Most that kept trunk activations may take in ``cache_folder``: ``PLUSX_CACHE_GIB``, or 20.

    Raises:
        UsageError: the variable is no number of at least 0.
    """
    said = os.environ.get("PLUSX_CACHE_GIB", "20")
    try:
        value = float(said)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(
            f"environment variable PLUSX_CACHE_GIB={said!r} must be a number of at least 0 (GiB)"
        )
    return value


def share_metrics(folder: Path) -> None:
    """Let this process and those that it starts share their counters in ``folder``
    (https://prometheus.github.io/client_python/multiprocess/)."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def api_keys() -> str | None:
    """``PLUSX_API_KEYS``: keys of the server, separated by commas."""
    return os.environ.get("PLUSX_API_KEYS") or None


def allow_open_files(most: int) -> int:
    """Raise this process's limit of open files and connections to ``most``, as far as it may.

    Returns:
        How many may be open now; where the system knows no such limit (Windows), ``most``.
    """
    if sys.platform == "win32":
        return most
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unbounded = resource.RLIM_INFINITY
    if soft == unbounded or soft >= most:
        return most
    allowed = most if hard == unbounded else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return allowed
