"""``plusx choose --dry-run``: which nets are at hand, and how long choosing takes."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from plusx.jobs.choose_candidates import Net, find_candidates, load_all
from plusx.jobs.choose_options import ChooseOptions
from plusx.jobs.choose_work import check_some, feature_cache, find_images, frozen
from plusx.jobs.kept_features import kept_features
from plusx.jobs.talk import Talk
from plusx.weights import Network

_FEW = 8  # images that each net runs


@dataclass(frozen=True)
class ChooseEstimate:
    """What a choice would take on this machine.

    Attributes:
        seconds: in all.
        nets: that are at hand.
        skipped: those that are not -> why.
        images: each net would see.
        kept: of all images and nets, so many features are kept already.
    """

    seconds: float
    nets: tuple[str, ...]
    skipped: dict[str, str]
    images: int
    kept: int


def estimate(
    data: str | os.PathLike[str], *, talk: Talk | None = None, **options: Any
) -> ChooseEstimate:
    """Run each net on a few images, and multiply.

    Raises:
        PlusxError: as ``choose`` would.
    """
    asked, talk = ChooseOptions.of(data, **options), talk or Talk()
    images = find_images(asked, talk)
    candidates, skipped = find_candidates(asked)
    step = max(1, len(images.samples) // _FEW)
    few, keys = images.samples[::step][:_FEW], images.keys[::step][:_FEW]
    seconds, kept, names = 0.0, 0, []

    def look(net: Net, network: Network) -> None:
        nonlocal seconds, kept
        names.append(net.name)
        mine = frozen(net, network, asked)
        entry = mine.entry(mine.engine(len(images.samples)))
        known = feature_cache(asked).holds(entry, images.keys)
        kept += known
        run = partial(kept_features, mine, cache=None, data="", talk=Talk(quiet=True))
        run(few[:1], keys[:1])  # warms up
        began = time.perf_counter()
        run(few, keys)
        per_image = (time.perf_counter() - began) / len(few)
        seconds += (len(images.samples) - known) * per_image + 1.3 * asked.seconds + 3

    skipped |= load_all(candidates, len(images.listing.classes), asked.seed, look)
    check_some(names, skipped)
    return ChooseEstimate(seconds, tuple(names), skipped, len(images.samples), kept)
