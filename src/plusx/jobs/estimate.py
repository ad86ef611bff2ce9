"""``--dry-run``: time, memory and disk of a training, measured on a few images beforehand."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from plusx.data import Sample, gather_facts
from plusx.fit.features import Loading, first_pass
from plusx.fit.loop import forward
from plusx.fit.optimizers import make_optimizer
from plusx.jobs.cached import activation_shape, affordable_views, open_engine, trained_on
from plusx.jobs.options import TrainOptions
from plusx.jobs.setup import Setup, prepare
from plusx.jobs.talk import Talk
from plusx.model.surgery import split_trunk, training_mode, unfreeze_last_blocks

IMAGES = 24


@dataclass(frozen=True)
class Estimate:
    """What a training would take on this machine.

    Attributes:
        seconds: from start to report.
        memory_gib: peak of this process, measured while one step ran; None where the system
            does not say.
        disk_gib: at most, the cache that is removed at the end included.
        images: in the listing.
        epochs: at most.
    """

    seconds: float
    memory_gib: float | None
    disk_gib: float
    images: int
    epochs: int


def estimate(options: TrainOptions, talk: Talk) -> Estimate:
    """Run a few images and one training step, and multiply.

    Raises:
        PlusxError: as training would: the data, weights or an option cannot be used.
    """
    setup = prepare(options, talk)
    train, val, test = (len(setup.listing.part(s)) for s in ("train", "val", "test"))
    parameters = sum(p.numel() * 4 for p in setup.network.model.parameters())
    # Windows cannot remove a file that is still mapped; that must not fail the estimate.
    scratch = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    few = setup.listing.samples[:: max(1, len(setup.listing.samples) // IMAGES)][:IMAGES]
    with scratch as temporary, talk.phase("measuring"):
        started, per_fact = _audit_seconds(setup, few)
        per_image, views, row_bytes = _pass_seconds(setup, few, Path(temporary))
        per_step, trained_bytes = step_seconds(setup) if setup.unfreeze != 0 else (0.0, 0)
    epochs = 0 if setup.unfreeze == 0 else setup.recipe.epochs
    streams = 0 if views else per_image  # without a cache every epoch reads the images again
    seconds = (train + val + test) * per_image * 2 + max(0, views - 1) * train * per_image
    seconds += started + (train + val + test) * per_fact
    seconds += epochs * (train * (per_step + streams) + val * (per_step / 3 + streams))
    folds = setup.options.folds
    seconds += folds * epochs * train * (per_step + streams)
    # checkpoint: network, two moments and up to three winners
    disk = parameters + 6 * trained_bytes + views * (train + val + test) * row_bytes
    return Estimate(seconds + 5, _peak_gib(), disk / 2**30, train + val + test, epochs)


def _audit_seconds(setup: Setup, few: Sequence[Sample]) -> tuple[float, float]:
    """Seconds until the audit's processes run, and per image then, where nothing is cached yet."""
    took = []
    for samples in (few[:1], few):
        began = time.perf_counter()
        gather_facts(
            [sample.path for sample in samples],
            processes=setup.threads,
            channels=setup.preprocessing.channels,
            reading=setup.preprocessing.reading,
        )
        took.append(time.perf_counter() - began)
    return took[0], max(0.0, took[1] - took[0]) / max(1, len(few) - 1)


def _pass_seconds(setup: Setup, few: Sequence[Sample], folder: Path) -> tuple[float, int, int]:
    """Seconds per image of decoding and one forward, cached views, bytes per view."""
    engine, _ = open_engine(setup)
    row_bytes = views = 0
    if setup.unfreeze:
        shape, images = activation_shape(setup), len(setup.listing.samples)
        row_bytes = shape.row_bytes
        views = affordable_views(setup, shape, images, len(trained_on(setup)))
    loading = Loading(setup.threads)
    first_pass(engine, few[:2], setup.preprocessing, folder=folder, loading=loading)
    started = time.perf_counter()
    first_pass(engine, few, setup.preprocessing, folder=folder, loading=loading)
    return (time.perf_counter() - started) / len(few), views, row_bytes


def step_seconds(setup: Setup) -> tuple[float, int]:
    """Seconds per image of one training step, and bytes of the trained part."""
    model, size = setup.network.model, setup.preprocessing.size
    images = torch.zeros(setup.recipe.batch_size, setup.preprocessing.channels, size, size)
    net: nn.Module = model
    inputs: tuple[torch.Tensor, ...] = (images,)
    if setup.unfreeze is not None:
        unfreeze_last_blocks(model, setup.unfreeze)
        trunk, net = split_trunk(model, setup.unfreeze)
        trunk.eval()
        with torch.no_grad():
            one = trunk(images[:1])
        inputs = tuple(x.expand(len(images), *x.shape[1:]).contiguous() for x in one)
    else:
        model.requires_grad_(True)
    net.to(setup.hardware.device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(net, setup.recipe)
    training_mode(net, norm_statistics=setup.recipe.norm == "train")
    seconds = 0.0
    for _ in range(2):  # the first one warms up
        started = time.perf_counter()
        forward(net, inputs, setup.hardware).float().square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        seconds = time.perf_counter() - started
    return seconds / len(images), sum(p.numel() * 4 for p in net.parameters())


def _peak_gib() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
