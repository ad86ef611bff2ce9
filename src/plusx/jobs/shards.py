"""``plusx shards``: a data set into tar files, shard by shard, so that it can be taken up again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from plusx.data.filebytes import Refused, locate, read_bytes
from plusx.data.listing import read_listing
from plusx.data.ordered import map_ordered
from plusx.data.reading import Reading
from plusx.data.records import BadImage, Listing
from plusx.data.safely import read_safely
from plusx.data.shard_files import INDEX, UNFINISHED, VERSION
from plusx.data.shard_writing import (
    Member,
    Shard,
    check_library,
    make_member,
    member_keys,
    orders,
    shard_name,
    write_shard,
)
from plusx.data.split import relative_name
from plusx.errors import ArtifactError, DataError, UnreadableImage, UsageError
from plusx.jobs.lock import held
from plusx.jobs.shard_progress import LeftOut, Progress, write_text
from plusx.jobs.talk import Talk, Tick
from plusx.runtime import cpu_count

CLASSES = "classes.txt"
_LEAST_MIB, _MOST_MIB = 1, 1 << 20


@dataclass(frozen=True)
class Shards:
    """What was written.

    Attributes:
        out: the folder.
        source: the data.
        task: ``single`` or ``multi``.
        classes: their names; ``cls`` members count them from 0.
        shards: in the order of writing.
        left_out: images that cannot be read.
        images: in all shards.
    """

    out: str
    source: str
    task: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    left_out: tuple[BadImage, ...]

    @property
    def images(self) -> int:
        """In all shards."""
        return sum(shard.images for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """Of ``--json``, and most of ``index.json``."""
        return asdict(self) | {"images": self.images}


@dataclass(frozen=True)
class _Plan:
    """All that the bytes of the shards depend on, and where they go."""

    out: Path
    listing: Listing
    keys: Sequence[str]
    most_bytes: int
    check: bool
    threads: int
    fingerprint: str


def make_shards(
    data: str, out: str, *, size_mib: int = 256, seed: int = 0, check: bool = True,
    threads: int | None = None, overwrite: bool = False, talk: Talk | None = None,
) -> Shards:  # fmt: skip
    """Write a data set as shards; see docs/shards.md.

    Images keep their bytes. Each shard appears when it is whole, ``index.json`` when all are; the
    same call goes on after an interruption, from the shard it was at.

    Args:
        data: anything that :func:`plusx.data.read_listing` reads.
        out: a folder, new, empty or from an earlier call.
        size_mib: most that a shard takes, unless one image is larger.
        seed: of the order.
        check: decode every image first, and leave out what can't be.
        threads: that read and decode; by default one a core.
        overwrite: replace the shards that are in ``out``.
        talk: where it is said what happens.

    Raises:
        MissingExtra: webdataset is absent.
        DataError: the data cannot be used.
        UsageError: ``out`` holds something else, or shards of other data or options.
        ArtifactError: ``out`` cannot be written.
    """
    talk = talk or Talk(quiet=True)
    if not _LEAST_MIB <= size_mib <= _MOST_MIB:
        raise UsageError(f"--size-mib {size_mib} must lie between {_LEAST_MIB} and {_MOST_MIB:,}")
    check_library()
    folder = Path(out)
    _check_apart(data, folder)
    listing = read_listing(data, training=False)
    for name in listing.classes:
        if name.splitlines() != [name] or name.encode("utf-8", "ignore").decode() != name:
            raise DataError(f"{data}: class {name!r} is not one line of UTF-8; rename it")
    plan = _Plan(
        out=folder,
        listing=listing,
        keys=member_keys(listing),
        most_bytes=size_mib << 20,
        check=check,
        threads=threads or cpu_count(),
        fingerprint=_fingerprint(listing, size_mib, seed, check=check),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(folder):
            return _make(plan, orders(listing, seed), overwrite, talk)
    except OSError as error:
        raise ArtifactError(
            f"{folder}: cannot be written ({error.strerror or error}); shards that are whole are "
            "kept: make room and run it again"
        ) from error


def _make(
    plan: _Plan, order: dict[str | None, Sequence[int]], overwrite: bool, talk: Talk
) -> Shards:
    for leftover in plan.out.glob(".plusx-*.tmp"):
        leftover.unlink()
    if overwrite:
        _clear(plan)
    whole = Progress.read(plan.out / INDEX)
    if whole is not None and whole.fingerprint == plan.fingerprint:
        talk.say(f"{plan.out}: is complete already; --overwrite writes it again")
        return _result(plan, whole)
    begun = Progress.read(plan.out / UNFINISHED)
    progress = Progress(plan.fingerprint, [], [])
    if begun is not None and begun.fingerprint == plan.fingerprint:
        progress = begun.still_there(plan.out, talk)
    elif begun is not None or whole is not None:
        raise UsageError(
            f"{plan.out}: holds shards of other data or options; give another folder, or "
            "--overwrite to replace them"
        )
    elif there := sorted(p.name for p in plan.out.iterdir() if not p.name.startswith(".")):
        raise UsageError(f"{plan.out}: holds other files ({there[0]}); give a new folder")
    try:
        _write_all(plan, order, progress, talk)
    except KeyboardInterrupt:
        talk.say(f"{len(progress.shards)} shards are whole; the same command goes on from there")
        raise
    result = _result(plan, progress)
    write_text(plan.out / CLASSES, "".join(f"{name}\n" for name in result.classes))
    progress.write(plan.out / INDEX, source=result.source, task=result.task,
                   classes=result.classes, images=result.images)  # fmt: skip
    (plan.out / UNFINISHED).unlink()
    return result


def _write_all(
    plan: _Plan, order: dict[str | None, Sequence[int]], progress: Progress, talk: Talk
) -> None:
    progress.write(plan.out / UNFINISHED)
    total = len(plan.listing.samples)
    done = dict.fromkeys(order, 0) | {one.split: one.next for one in progress.shards}
    if before := sum(done.values()):
        talk.say(f"going on after {len(progress.shards)} shards ({before:,} of {total:,} images)")
    with talk.phase("writing shards", total - before) as tick:
        for split, positions in order.items():
            if done[split] < len(positions):
                _write_split(plan, split, positions, progress, tick)


def _write_split(
    plan: _Plan, split: str | None, positions: Sequence[int], progress: Progress, tick: Tick
) -> None:
    mine = [shard for shard in progress.shards if shard.split == split]
    start, number = (mine[-1].next if mine else 0), len(mine)
    bad: list[LeftOut] = []
    members = _members(plan, split, positions, start, bad)
    upcoming = next(members, None)
    if upcoming is None and not mine:
        reasons = "; ".join(f"{one.image.path}: {one.image.reason}" for one in bad[:3])
        what = f"no image of {split}" if split else "none of its images"
        raise DataError(f"{plan.listing.source}: {what} can be read ({reasons})")
    while upcoming is not None:
        shelf = _Shelf(upcoming, members, plan.most_bytes)
        path = plan.out / shard_name(split, number)
        shard = write_shard(path, shelf, lambda member: tick(1, path.name))  # noqa: B023 (at once)
        upcoming = shelf.upcoming
        # What cannot be read between two images belongs to the shard of the first.
        after = len(positions) if upcoming is None else upcoming.next - 1
        progress.shards.append(replace(shard, split=split, next=after))
        progress.left_out += [one for one in bad if one.place < after]
        bad[:] = [one for one in bad if one.place >= after]
        number += 1
        progress.write(plan.out / UNFINISHED)
    progress.left_out += bad
    progress.write(plan.out / UNFINISHED)


class _Shelf:
    """The members of one shard: as many as fit, one at least; and the first that does not."""

    def __init__(self, first: Member, members: Iterator[Member], most_bytes: int) -> None:
        self._first, self._members, self._most = first, members, most_bytes
        self.upcoming: Member | None = None

    def __iter__(self) -> Iterator[Member]:
        taken = 0
        for member in chain([self._first], self._members):
            if taken and taken + member.bytes > self._most:
                self.upcoming = member
                return
            taken += member.bytes
            yield member


def _members(
    plan: _Plan, split: str | None, positions: Sequence[int], start: int,
    bad: list[LeftOut],
) -> Iterator[Member]:  # fmt: skip
    """The images from ``start`` on, read in threads, in order; those that cannot be go to
    ``bad``."""

    def load(place: int) -> Member | LeftOut:
        row = int(positions[place])
        sample = plan.listing.samples[row]
        try:
            content = read_bytes(sample.path, _READING.limits)
            if plan.check:
                read_safely(content, channels=3, reading=_READING)
        except (Refused, UnreadableImage) as error:
            reason = error.reason if isinstance(error, UnreadableImage) else str(error)
            return LeftOut(split, place, BadImage(sample.path, reason))
        return make_member(plan.listing, sample, plan.keys[row], content, next_at=place + 1)

    places = range(start, len(positions))
    for one in map_ordered(load, places, threads=plan.threads, ahead=2 * plan.threads, chunk=1):
        if isinstance(one, Member):
            yield one
        else:
            bad.append(one)


_READING = Reading()


def _check_apart(data: str, out: Path) -> None:
    source = Path(data)
    if source.is_dir() and (out.resolve() == source.resolve()
                            or source.resolve() in out.resolve().parents):  # fmt: skip
        raise UsageError(f"{out}: lies in the data's own folder; give one outside of it")


def _fingerprint(listing: Listing, size_mib: int, seed: int, *, check: bool) -> str:
    """Of all that the shards' bytes depend on; images by name, size and time."""
    digest = hashlib.sha256(json.dumps([VERSION, listing.task, listing.classes, size_mib, seed,
                                        check]).encode())  # fmt: skip
    for sample in listing.samples:
        size = when = -1
        with suppress(Refused, OSError, ValueError):
            place = locate(sample.path)
            size, when = place.size, place.mtime_ns
        said = [relative_name(listing, sample), sample.target, sample.split, sample.group]
        digest.update(json.dumps([*said, size, when]).encode())
    return digest.hexdigest()


def _clear(plan: _Plan) -> None:
    """Remove the shards that an earlier call wrote; nothing else."""
    before = [Progress.read(plan.out / name) for name in (INDEX, UNFINISHED)]
    if not any(before):
        return
    # until they are gone, whoever reads the folder is told
    Progress("", [shard for one in before if one for shard in one.shards], []).write(
        plan.out / UNFINISHED
    )
    shards = [shard.name for one in before if one for shard in one.shards]
    for name in (INDEX, *shards, CLASSES, UNFINISHED):
        (plan.out / name).unlink(missing_ok=True)


def _result(plan: _Plan, progress: Progress) -> Shards:
    listing = plan.listing
    return Shards(
        str(plan.out), listing.source, listing.task, listing.classes, tuple(progress.shards),
        tuple(one.image for one in progress.left_out),
    )  # fmt: skip
