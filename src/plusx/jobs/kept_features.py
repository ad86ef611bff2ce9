"""Features of images under a frozen network: those kept of earlier runs, and the rest run now.

``plusx scan``, ``choose`` and ``train`` find each other's: an entry of the trunk cache is found by
network, weights, preprocessing, engine and precision, and its rows by the images' content.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from plusx.data import Preprocessing, Sample
from plusx.data.remarks import Remarks
from plusx.engines.openvino_split import TrunkRefused
from plusx.fit.cache import FULL, About, TrunkCache
from plusx.fit.cache_key import depends
from plusx.fit.cache_rows import Keys
from plusx.fit.features import Features, FirstPass, Loading, cached_pass, first_pass
from plusx.fit.keyed_rows import KeyedRows
from plusx.fit.trunk import Rows
from plusx.fit.trunk_engine import TrunkEngine, make_trunk, resolve_trunk_engine
from plusx.jobs.talk import Talk
from plusx.model.classifier import Classifier
from plusx.runtime import cache_folder, cache_gib


@dataclass(frozen=True)
class Frozen:
    """A network whose features are wanted, and how it runs.

    Attributes:
        model: the network.
        preprocessing: image file to tensor.
        device: where it runs.
        dtype: in which.
        threads: for decoding.
        name: for a person.
    """

    model: Classifier
    preprocessing: Preprocessing
    device: torch.device
    dtype: torch.dtype
    threads: int
    name: str = ""

    def entry(self, engine: TrunkEngine, data: str = "") -> About:
        """The cache's entry for its features as ``engine`` computes them."""
        spec = self.model.spec
        about = depends(self.model, 0, self.preprocessing, engine)
        return About("features", about, 4 * spec.feature_channels, spec.name, data)

    def engine(self, images: int) -> TrunkEngine:
        """What runs it, for so many images."""
        return resolve_trunk_engine(self.device, self.dtype, forwards=images)


def user_cache(folder: Path | None = None) -> TrunkCache:
    """What all runs of this user share, or what lies in ``folder`` instead."""
    return TrunkCache((folder or cache_folder()) / "trunk", int(cache_gib() * 2**30))


def kept_features(
    net: Frozen,
    samples: Sequence[Sample],
    keys: Keys,
    *,
    cache: TrunkCache | None,
    data: str,
    talk: Talk,
) -> FirstPass:
    """Features of every image; those that are not kept yet are, where ``cache`` has room.

    Args:
        net: whose features.
        samples: n images.
        keys: (n,) content hash of each; see ``file_keys``.
        cache: where they are kept; None keeps nothing and uses nothing.
        data: for a person: the data set's name.
        talk: where progress is said.
    """
    try:
        return _features(net, net.engine(len(samples)), samples, keys, cache, data, talk)
    except TrunkRefused as error:
        talk.note(f"openvino cannot run the network ({error}): torch does")
        return _features(net, net.engine(0), samples, keys, cache, data, talk)
    except OSError as error:
        if cache is None or error.errno not in FULL:
            raise
        talk.note(f"{cache.folder}: the disk is full: no features are kept")
        return kept_features(net, samples, keys, cache=None, data=data, talk=talk)


def _features(
    net: Frozen,
    chosen: TrunkEngine,
    samples: Sequence[Sample],
    keys: Keys,
    cache: TrunkCache | None,
    data: str,
    talk: Talk,
) -> FirstPass:
    engine = make_trunk(chosen, net.model, device=net.device, top_blocks=0)
    what, remarks = f"features{f' of {net.name}' * bool(net.name)}", Remarks()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch,
        talk.phase(what, len(samples)) as tick,
        ExitStack() as held,
    ):
        how = Loading(net.threads, tick=lambda n: tick(n, ""), remarks=remarks)
        rows = None if cache is None else _open(cache, net.entry(chosen, data), keys, held, talk)
        if rows is None:
            found = first_pass(
                engine, samples, net.preprocessing, folder=Path(scratch), loading=how
            )
        else:
            take_stock({what: rows}, np.arange(len(samples)), held, talk)
            found = cached_pass(
                engine, samples, net.preprocessing, folder=Path(scratch), features=rows, loading=how
            )
        features: Features = np.array(found.features)
    for line in remarks.lines():
        talk.note(line)
    return FirstPass(features, found.readable, found.bad)


def _open(
    cache: TrunkCache, about: About, keys: Keys, held: ExitStack, talk: Talk
) -> KeyedRows | None:
    """The rows of an entry, in use until ``held`` closes; None where nothing can be kept."""
    try:
        slot = cache.open(about, keys)
    except OSError as error:
        talk.note(f"{cache.folder}: no features are kept there ({error.strerror or error})")
        return None
    held.callback(slot.release)
    rows = KeyedRows(slot, keys, range(1))
    needed = len(rows.missing(0, np.arange(len(keys)))) * about.row_bytes
    if cache.make_room(needed, [slot.folder]) < needed:
        talk.note(f"{cache.folder}: there is no room for {needed / 2**20:.0f} MiB of features: "
                  "they are not kept")  # fmt: skip
        return None
    return rows


def take_stock(parts: Mapping[str, KeyedRows], images: Rows, held: ExitStack, talk: Talk) -> None:
    """Become the one that writes what lacks, until ``held`` closes, and say what is used again.

    Args:
        parts: by what they are, in words.
        images: positions of those that are wanted.
        held: takes the locks.
        talk: where it is said.
    """
    for what, part in parts.items():
        if len(part.missing(0, images)):
            held.enter_context(part.writing(lambda: say_waiting(talk)))
        _say_reused(what, part, images, talk)


def say_waiting(talk: Talk) -> None:
    """Another process writes the same rows."""
    talk.say("waiting for another run that keeps the same activations")


def _say_reused(what: str, part: KeyedRows, images: Rows, talk: Talk) -> None:
    lack = int((~part.known(0)[images]).sum())
    if part.damaged:
        talk.say(
            f"{part.slot.folder}: {part.damaged} kept rows are cut off or damaged and are not used"
        )
    if not lack:
        talk.say(f"{what} of an earlier run are used again")
    elif lack < len(images):
        talk.say(f"{what} of {len(images) - lack:,} images are used again, {lack:,} are run")
