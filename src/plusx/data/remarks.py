"""What is said about images that were read, but not as a person might think: each thing once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable

PAGES = "TIFF with several pages: the first is read"
ANIMATION = "animation: the first frame is read"
FRAMES = "DICOM with several frames: one is read"
PROFILE = "colour profile that is broken or does not fit: ignored"
OWN_RANGE = "32-bit values with no stated range: each image's own lowest to highest is used"
DEEP_COLOUR = "16-bit colour: taken at full range, no window"
NO_DATA = "pixels without data: they get the mean"


class Remarks:
    """Counts remarks about images, so that each can be said once; safe in threads.

    >>> remarks = Remarks()
    >>> remarks.add([PAGES])
    >>> remarks.lines()
    ['1 image: TIFF with several pages: the first is read']
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, found: Iterable[str]) -> None:
        """Count one image's remarks."""
        if found:
            with self._lock:
                self._counts.update(set(found))

    def lines(self) -> list[str]:
        """One line for each remark, with the number of images, most frequent first."""
        with self._lock:
            ranked = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return [f"{n:,} image{'s' * (n != 1)}: {text}" for text, n in ranked]
