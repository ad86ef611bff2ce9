"""How far ``plusx shards`` has come: what is done, kept beside the shards until all are there."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from plusx.atomic import replacing
from plusx.data.records import BadImage
from plusx.data.shard_files import FORMAT, VERSION
from plusx.data.shard_writing import Shard, file_sha256
from plusx.errors import UsageError
from plusx.jobs.talk import Talk


@dataclass(frozen=True)
class LeftOut:
    """An image that is in no shard.

    Attributes:
        split: its split.
        place: its position in the order of writing.
        image: which, and why.
    """

    split: str | None
    place: int
    image: BadImage


@dataclass
class Progress:
    """What is done.

    Attributes:
        fingerprint: of all that the shards depend on.
        shards: that are whole, in the order of writing.
        left_out: images that cannot be read.
    """

    fingerprint: str
    shards: list[Shard]
    left_out: list[LeftOut]

    @classmethod
    def read(cls, path: Path) -> Progress | None:
        """What ``index.json`` or ``unfinished.json`` says; None where it is absent or another's.

        Raises:
            UsageError: it is damaged.
        """
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(said, dict) or said.get(FORMAT) != VERSION:
                return None
            left_out = [LeftOut(split, place, BadImage(name, why))
                        for split, place, name, why in said["left_out"]]  # fmt: skip
            return cls(said["fingerprint"], [Shard(**one) for one in said["shards"]], left_out)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{path}: is damaged; remove the folder and write it again") from error

    def write(self, path: Path, **more: Any) -> None:
        """Keep it in ``path``, with ``more`` for those who read the shards."""
        left_out = [[o.split, o.place, o.image.path, o.image.reason] for o in self.left_out]
        shards = [asdict(shard) for shard in self.shards]
        about = {FORMAT: VERSION, "fingerprint": self.fingerprint, **more, "shards": shards}
        about["left_out"] = left_out
        write_text(path, json.dumps(about, indent=1) + "\n")

    def still_there(self, folder: Path, talk: Talk) -> Progress:
        """The part of it whose shards are as they were written: of each split those before the
        first that is not."""
        kept: list[Shard] = []
        broken: set[str | None] = set()
        mib = sum(shard.bytes for shard in self.shards) >> 20
        with talk.phase("checking shards", mib) as tick:
            for shard in self.shards:
                path = folder / shard.name
                whole = False
                with suppress(FileNotFoundError):
                    same = path.stat().st_size == shard.bytes
                    whole = same and file_sha256(path, lambda n: tick(n >> 20, "")) == shard.sha256
                if not whole and shard.split not in broken:
                    broken.add(shard.split)
                    talk.note(f"{path}: is not as it was written; it is written again")
                if shard.split not in broken:
                    kept.append(shard)
        reached = {shard.split: shard.next for shard in kept}
        left_out = [one for one in self.left_out if one.place < reached.get(one.split, 0)]
        return Progress(self.fingerprint, kept, left_out)


def write_text(path: Path, text: str) -> None:
    """A small file, there when it is whole."""
    with replacing(path, durable=True) as beside:
        beside.write_text(text, encoding="utf-8")
