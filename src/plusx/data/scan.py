"""Finding broken files before training starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from plusx.data.decode import read_image
from plusx.data.ordered import map_ordered
from plusx.data.reading import Reading
from plusx.data.records import BadImage, Sample
from plusx.data.remarks import Remarks
from plusx.errors import UnreadableImage


def find_unreadable(
    samples: Iterable[Sample],
    *,
    threads: int,
    tick: Callable[[int], None] = lambda n: None,
    channels: int = 3,
    reading: Reading | None = None,
    remarks: Remarks | None = None,
) -> list[BadImage]:
    """Decode every image in full, keep none, and say which cannot be read.

    Memory stays flat. Whether a file is good is what :func:`read_image` says, so that what
    passes here cannot fail later unless the file changes.

    Args:
        samples: any iterable.
        threads: how many decode at once.
        tick: called in this thread with the number of images done since the last call.
        channels: as the model wants them.
        reading: how the model's files are decoded.
        remarks: gets what a person should be told about the images.

    Returns:
        The bad ones, in the order of ``samples``.
    """

    def check(sample: Sample) -> BadImage | None:
        notes: list[str] = []
        try:
            read_image(sample.path, channels=channels, reading=reading or Reading(), notes=notes)
        except UnreadableImage as error:
            return BadImage(sample.path, error.reason)
        if remarks is not None:
            remarks.add(notes)
        return None

    bad = []
    results = map_ordered(check, samples, threads=threads, ahead=16 * threads)
    for found in results:
        if found is not None:
            bad.append(found)
        tick(1)
    return bad
