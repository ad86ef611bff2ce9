"""The steps of a choice: images listed, nets loaded, timed, and run over the images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from plusx.data import BadImage, Listing, Sample, groups_of, read_listing, split_listing
from plusx.data.records import target_array
from plusx.errors import UsageError
from plusx.fit.cache import TrunkCache
from plusx.fit.cache_key import file_keys
from plusx.fit.cache_rows import Keys
from plusx.fit.features import Features
from plusx.fit.rows import sample
from plusx.jobs.bench_engines import Run, make
from plusx.jobs.bench_timing import ROUNDS, Timing, interleave
from plusx.jobs.choose_candidates import Candidate, Net, load_all
from plusx.jobs.choose_figures import fitting_size
from plusx.jobs.choose_options import ChooseOptions
from plusx.jobs.kept_features import Frozen, kept_features, user_cache
from plusx.jobs.talk import Talk
from plusx.jobs.wording import by_reason
from plusx.runtime import cpu_count, resolve_device, resolve_precision
from plusx.weights import Network


@dataclass(frozen=True)
class Images:
    """The images that choose.

    Attributes:
        listing: with its splits.
        samples: n of them.
        keys: (n,) of their content.
        about: where they come from, in words.
    """

    listing: Listing
    samples: tuple[Sample, ...]
    keys: Keys
    about: str


def find_images(asked: ChooseOptions, talk: Talk) -> Images:
    """The training images, or a part of them."""
    listing = read_listing(asked.data)
    if listing.task != "single":
        raise UsageError(f"{asked.data}: several labels an image; plusx choose takes one an image")
    split = any(one.split is not None for one in listing.samples)
    if not split:
        listing = split_listing(listing, seed=asked.seed, val_fraction=asked.val_fraction)
    train = listing.part("train")
    rest = len(listing.samples) - len(train)
    about = (f"{len(train):,} training images; {rest:,} of other splits were left alone" if split
             else f"{len(train):,} images; the {rest:,} that plusx train would set aside for "
             f"validation (seed {asked.seed}) were left alone")  # fmt: skip
    targets = target_array(train, len(listing.classes), "single").astype(np.int64)
    most = fitting_size(asked.images, len(listing.classes))
    rows = sample(targets, most, np.random.default_rng(asked.seed))
    if len(rows) < len(train):
        talk.note(
            f"{len(rows):,} of {len(train):,} training images are compared, every class in "
            "proportion (--images)"
        )
    samples = tuple(train[row] for row in rows)
    keys = file_keys([one.path for one in samples], decoding_threads(asked))
    return Images(listing, samples, keys, about)


def load_nets(
    candidates: Sequence[Candidate],
    skipped: dict[str, str],
    images: Images,
    asked: ChooseOptions,
    talk: Talk,
) -> tuple[list[Net], dict[str, Run]]:
    """The nets that can be had, each ready to be timed; why others cannot goes to ``skipped``."""
    where = resolve_device(asked.device)
    precision = str(resolve_precision(asked.precision, where)).removeprefix("torch.")
    nets: list[Net] = []
    runs: dict[str, Run] = {}
    with talk.phase("loading", len(candidates)) as tick:

        def ready(net: Net, network: Network) -> None:
            runs[net.name] = make(asked.engine, precision, network.model, device=asked.device)
            nets.append(net)
            for text in network.notes:
                talk.note(f"{net.name}: {text}")
            tick(1, net.name)

        skipped |= load_all(list(candidates), len(images.listing.classes), asked.seed, ready)
    check_some([net.name for net in nets], skipped)
    for why, names in by_reason(skipped).items():
        talk.say(f"skipped: {', '.join(names)}: {why}")
    return nets, runs


def time_nets(
    nets: Sequence[Net], runs: dict[str, Run], asked: ChooseOptions, talk: Talk
) -> dict[str, Timing]:
    """How long one image takes each net, in turn round by round."""
    random = np.random.default_rng(0)
    calls: dict[str, Callable[[], object]] = {}
    for net in nets:
        shape = (1, net.preprocessing.channels, net.preprocessing.size, net.preprocessing.size)
        image = random.standard_normal(shape, dtype=np.float32)
        calls[net.name] = partial(runs[net.name], image)
    with talk.phase("timing", ROUNDS * len(calls)) as tick:
        return interleave(
            calls,
            seconds=asked.seconds,
            items=dict.fromkeys(calls, 1),
            tick=lambda name: tick(1, name),
        )


def gather_features(
    nets: Sequence[Net], images: Images, asked: ChooseOptions, talk: Talk
) -> tuple[list[Features], npt.NDArray[np.bool_], tuple[BadImage, ...]]:
    """Features of each net for the images that all of them could read."""
    everything: list[Features] = []
    readable = np.ones(len(images.samples), dtype=np.bool_)
    bad: dict[str, BadImage] = {}
    for net in nets:
        rows = np.flatnonzero(readable)  # not those that another net could not read
        network = net.candidate.load(len(images.listing.classes), asked.seed)
        first = kept_features(
            frozen(net, network, asked),
            [images.samples[row] for row in rows],
            images.keys[rows],
            cache=feature_cache(asked),
            data=Path(images.listing.root).name,
            talk=talk,
        )
        bad |= {item.path: item for item in first.bad}
        readable[rows[~first.readable]] = False
        found = np.zeros((len(images.samples), first.features.shape[1]), np.float32)
        found[rows] = first.features
        everything.append(found)
    return [found[readable] for found in everything], readable, tuple(bad.values())


def tie_copies(samples: Sequence[Sample], keys: Keys) -> tuple[str, ...] | None:
    """As the data names them; files of one content are a group, so that no fold judges a copy of
    what another learned from."""
    _, same, count = np.unique(keys, return_inverse=True, return_counts=True)
    tied = [
        replace(one, group=f"copies {number}") if one.group is None and count[number] > 1 else one
        for one, number in zip(samples, same.tolist(), strict=True)
    ]
    return groups_of(tied)


def check_budget(nets: Sequence[Net], times: dict[str, Timing], asked: ChooseOptions) -> None:
    """Refuse a ``--latency`` that no net meets."""
    if asked.latency_ms is None:
        return
    fastest = min(nets, key=lambda net: times[net.name].p50_ms)
    took = times[fastest.name].p50_ms
    if took > asked.latency_ms:
        raise UsageError(
            f"--latency {asked.latency_ms:g}ms: no net at hand is that fast with {asked.engine}; "
            f"the fastest, {fastest.name}, takes {took:.3g} ms for one image"
        )


def check_some(names: Sequence[str], skipped: dict[str, str]) -> None:
    """Refuse to choose among none, with the reasons why each was skipped."""
    if not names:
        reasons = "; ".join(f"{name}: {why}" for name, why in list(skipped.items())[:3])
        raise UsageError(
            f"no net is at hand ({reasons}); give --weights-dir, or --download to fetch weights"
        )


def frozen(net: Net, network: Network, asked: ChooseOptions) -> Frozen:
    """As it runs over the images."""
    where = resolve_device(asked.device)
    dtype, threads = resolve_precision("auto", where), decoding_threads(asked)
    return Frozen(network.model, net.preprocessing, where, dtype, threads, net.name)


def feature_cache(asked: ChooseOptions) -> TrunkCache:
    """Where features are kept from run to run."""
    return user_cache(None if asked.cache is None else Path(asked.cache))


def decoding_threads(asked: ChooseOptions) -> int:
    """As asked for, or one for every core."""
    return asked.threads or cpu_count()
