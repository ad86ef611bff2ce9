"""``plusx bench``: how fast networks answer on this machine, how much memory they take."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plusx.data import unlabelled
from plusx.errors import PlusxError, UsageError
from plusx.evaluate.bench_plots import Picture, latencies, save_plot
from plusx.jobs.bench_engines import Run, installed, missing, parse_engines, parse_precisions
from plusx.jobs.bench_memory import peak_memory
from plusx.jobs.bench_subjects import Subject, find_subject
from plusx.jobs.bench_timing import ROUNDS, Timing, busy_note, cores_in_use, interleave
from plusx.jobs.bench_whole import Whole, whole_way
from plusx.jobs.origin import versions
from plusx.jobs.run import write_json
from plusx.jobs.talk import Talk
from plusx.jobs.wording import duration
from plusx.runtime import cpu_count, resolve_device

PathLike = str | os.PathLike[str]

SHAKY = 0.10
"""Spread of the rounds' medians above which a figure is said to be unsteady."""

_CHILD_SECONDS = 8.0  # to start a process, load torch and build a network, about


@dataclass(frozen=True)
class Measurement:
    """One network on one engine, in one precision, at one batch size.

    Attributes:
        subject: the network.
        engine, precision, batch: how it ran.
        timing: of batches, the network alone.
        memory_mib: most that its process held; None where it was not measured.
    """

    subject: Subject
    engine: str
    precision: str
    batch: int
    timing: Timing
    memory_mib: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.subject.name,
            "kind": self.subject.kind,
            "engine": self.engine,
            "precision": self.precision,
            "batch": self.batch,
            **self.timing.to_json(),
            "memory_mib": self.memory_mib,
            "image": [self.subject.channels, self.subject.size, self.subject.size],
            "params": self.subject.params,
            "macs": self.subject.macs,
            "file_mib": self.subject.file_mib,
        }


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes:
        rows: in the order in which the networks were named.
        left_out: what could not be run -> why.
        whole: from image files to answers, where images were given.
        machine: processor, cores, threads, versions, and how busy it was.
        notes: what should be known about the figures.
    """

    rows: tuple[Measurement, ...]
    left_out: dict[str, str]
    whole: tuple[Whole, ...]
    machine: dict[str, Any]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "machine": self.machine,
            "rows": [row.to_json() for row in self.rows],
            "end_to_end": [one.to_json() for one in self.whole],
            "left_out": self.left_out,
            "notes": list(self.notes),
        }

    def plot(self) -> Picture:
        """Latencies as bars."""
        bars: dict[int, dict[str, tuple[float, float, float]]] = {}
        for row in self.rows:
            name = f"{row.subject.name}, {row.engine} {row.precision}"
            time = row.timing
            bars.setdefault(row.batch, {})[name] = (time.p50_ms, time.p95_ms, time.per_s)
        return latencies(bars)


Key = tuple[int, str, str]  # which subject, engine, precision


def bench(
    *what: PathLike,
    engine: str | None = None,
    precision: str | None = None,
    batch: str | Sequence[int] = "1,16",
    seconds: float = 3.0,
    memory: bool = True,
    end_to_end: PathLike | None = None,
    device: str = "auto",
    out: PathLike | None = None,
    talk: Talk | None = None,
) -> Bench:
    """Time networks on this machine, all in turn within one run.

    Latency is that of the network alone, from a preprocessed batch in memory to its answer (of an
    exported file: from what the file takes); reading and decoding images is ``end_to_end``.

    Args:
        *what: a network's name, a run, or an exported file.
        engine: names with commas between; by default all that are installed.
        precision: likewise; by default float32 and the fastest of the same range here.
        batch: images a batch.
        seconds: timed for each network, engine, precision and batch size.
        memory: measure peak memory as well, each in a process of its own.
        end_to_end: images to read, decode and classify as well: a file, a folder or a pattern.
        device: of torch: ``auto``, ``cpu``, ``cuda[:N]`` or ``mps``.
        out: a folder for ``bench.json``, ``bench.svg`` and ``bench.png``.
        talk: where progress is said; by default stderr.

    Raises:
        UsageError: an unknown name, engine or precision, or nothing that can be run.
        PlusxError: a run or file cannot be read.
    """
    talk = talk or Talk()
    sizes = parse_batches(batch)
    if not 0 < seconds <= 3600:
        raise UsageError(f"--seconds {seconds:g} must be above 0, and at most 3600")
    if not what:
        raise UsageError("nothing to time: give a network's name, a run or an exported file")
    asked = parse_engines(engine), parse_precisions(precision, device)
    images = () if end_to_end is None else tuple(unlabelled(end_to_end))
    subjects = [find_subject(os.fspath(word)) for word in dict.fromkeys(what)]
    in_use = cores_in_use()
    if note := busy_note(in_use):
        talk.note(note)
    ready, left_out = _prepare(subjects, *asked, device=device)
    if not ready:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UsageError(f"none of it can be run here ({reasons})")
    count = len(ready) * len(sizes)
    needs = count * (seconds * 1.2 + 1) + len(ready) * (_CHILD_SECONDS if memory else 0)
    talk.say(f"{count} measurements, about {duration(needs)}")
    times = _time(ready, subjects, sizes, seconds, talk)
    whole = tuple(
        whole_way(subjects[at], (name, kind), run, images, max(sizes), talk)
        for (at, name, kind), run in ready.items()
        if images and subjects[at].kind != "file"
    )
    bad = {item.path: item.reason for one in whole for item in one.bad}
    for path, reason in bad.items():
        talk.note(f"left out: {path}: {reason}")
    held = _memory(list(ready), subjects, sizes, device, talk) if memory else {}
    rows = tuple(
        Measurement(subjects[at], name, kind, size, times[at, name, kind, size],
                    held.get((at, name, kind), {}).get(size))
        for at, name, kind in ready
        for size in sizes
    )  # fmt: skip
    _remark(rows, talk)
    machine = describe_machine(device) | {"cores_in_use_before": in_use, "seconds_each": seconds}
    found = Bench(rows, left_out, whole, machine, tuple(talk.notes))
    if out is not None:
        _write(found, Path(out))
    return found


def parse_batches(batch: str | Sequence[int]) -> tuple[int, ...]:
    """``1,16`` -> sizes.

    Raises:
        UsageError: one is no whole number from 1 to 4096.
    """
    parts = batch.split(",") if isinstance(batch, str) else [str(one) for one in batch]
    sizes = []
    for part in parts:
        text = part.strip()
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 4096):
            raise UsageError(f"--batch {part!r} must be whole numbers from 1 to 4096, as 1,16")
        sizes.append(int(text))
    return tuple(dict.fromkeys(sizes))


def describe_machine(device: str) -> dict[str, Any]:
    """Processor, cores, threads and versions, as far as the system tells."""
    where = resolve_device(device)
    return {
        "processor": _processor(),
        "cores": cpu_count(),
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else str(where),
        "torch_threads": torch.get_num_threads(),
        "system": platform.system(),
        "versions": versions(),
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines()
             if line.startswith("model name")]  # fmt: skip
    return names[0] if names else platform.machine()


def _prepare(
    subjects: Sequence[Subject],
    engines: tuple[str, ...],
    precisions: tuple[str, ...],
    *,
    device: str,
) -> tuple[dict[Key, Run], dict[str, str]]:
    """What can be run, ready; and why the rest cannot."""
    ready: dict[Key, Run] = {}
    left_out = {name: missing(name) for name in engines if not installed(name)}
    for at, subject in enumerate(subjects):
        for name in engines:
            if name in left_out or name not in subject.engines:
                continue
            for kind in subject.precisions(precisions):
                try:
                    ready[at, name, kind] = subject.prepare(name, kind, device=device)
                except PlusxError as error:
                    left_out[f"{subject.name}, {name} {kind}"] = str(error)
    return ready, left_out


def _time(
    ready: Mapping[Key, Run],
    subjects: Sequence[Subject],
    sizes: Sequence[int],
    seconds: float,
    talk: Talk,
) -> dict[tuple[int, str, str, int], Timing]:
    inputs = {(at, size): subjects[at].images(size) for at, _, _ in ready for size in sizes}
    calls = {
        (at, name, kind, size): partial(run, inputs[at, size])
        for (at, name, kind), run in ready.items()
        for size in sizes
    }
    with talk.phase("timing", ROUNDS * len(calls)) as tick:
        return interleave(
            calls,
            seconds=seconds,
            items={key: key[3] for key in calls},
            tick=lambda key: tick(1, f"{subjects[key[0]].name} {key[1]} {key[2]} x{key[3]}"),
        )


def _memory(
    keys: Sequence[Key], subjects: Sequence[Subject], sizes: Sequence[int], device: str, talk: Talk
) -> dict[Key, dict[int, float]]:
    found = {}
    with talk.phase("memory", len(keys)) as tick:
        for at, name, kind in keys:
            word = subjects[at].word
            found[at, name, kind] = peak_memory(word, name, kind, sizes, device=device)
            tick(1, f"{subjects[at].name} {name} {kind}")
    if not all(found.values()):
        talk.note("peak memory could not be measured for all: the system does not say, or a "
                  "process of its own could not run the network")  # fmt: skip
    return found


def _remark(rows: Sequence[Measurement], talk: Talk) -> None:
    shaky = [row for row in rows if row.timing.spread > SHAKY]
    if shaky:
        worst = max(shaky, key=lambda row: row.timing.spread)
        talk.note(
            f"{len(shaky)} of {len(rows)} measurements were unsteady: the medians of their "
            f"{ROUNDS} rounds differ by up to {100 * worst.timing.spread:.0f}% "
            f"({worst.subject.name}, {worst.engine} {worst.precision}, batch {worst.batch})"
        )


def _write(found: Bench, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench.json", found.to_json())
    draw = found.plot()
    for kind in ("svg", "png"):
        save_plot(draw, folder / f"bench.{kind}")
