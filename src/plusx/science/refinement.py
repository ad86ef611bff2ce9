"""Refinement: how the answer forms from block to block, read by a linear probe after every one.

Greff, Srivastava & Schmidhuber 2017 (arXiv 1612.07771): the blocks of a stage refine one estimate
step by step, rather than each making a new representation. Jastrzebski et al. 2018 (arXiv
1710.04773) measured that with linear probes and with each branch's step against the gradient (see
``refinement_steps``).

The images go through the net once. After the stem and after every block the maps are averaged
over pixels and kept on disk; a linear probe is fitted to each, and every image is answered by
probes that never saw it. The probe after the last block reads what the net's own head reads.

Departure: the papers ask the net's own head after each block, which fits only the last stage's
width; a probe of its own fits anywhere, and says what could be read there, not what the net reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from plusx.errors import UsageError
from plusx.fit.probe import cross_validate
from plusx.model.classifier import Classifier, average
from plusx.model.reach import Tracer
from plusx.model.surgery import fold_batchnorm
from plusx.runtime import fast_dtype, forward_batch
from plusx.science.subject import Images, Subject
from plusx.weights.timm_net import TimmNet

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Probing:
    """How the probes are judged.

    Attributes:
        folds: parts of the images; each is answered by probes fitted to the others.
        step_images: over which branches are set against gradients; 0 leaves that out.
        seed: of folds, halves and intervals.

    Raises:
        UsageError: fewer than 3 folds, or a negative number of images.
    """

    folds: int = 5
    step_images: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("folds", 3), ("step_images", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} {getattr(self, name)} must be at least {least}")


@dataclass(frozen=True)
class Stop:
    """Where a probe stands.

    Attributes:
        block: counted from 0; -1 after the stem.
        stage, position: of that block, from 0; both -1 after the stem.
        features: numbers that its probe reads.
        macs: multiply-adds of one image from the pixels to there, probes not counted.
    """

    block: int
    stage: int
    position: int
    features: int
    macs: int

    @property
    def name(self) -> str:
        """Such as ``block 3``."""
        return "stem" if self.block < 0 else f"block {self.block}"


def stops_of(model: Classifier, size: tuple[int, int]) -> list[Stop]:
    """All stops of a net for images of ``size`` (H, W).

    Raises:
        UsageError: it has no blocks to stop between.
    """
    if isinstance(model, TimmNet) or model.spec.blocks < 2:
        raise UsageError(
            f"{model.spec.name}: is one block to plusx, so there is nothing between its input and "
            "its answer; give a residual net or a VGG"
        )
    meta = deepcopy(model).to("meta").eval()
    x = torch.empty(1, model.spec.in_channels, *size, device="meta")
    sizes = [len(cast("nn.Sequential", stage)) for stage in model.stages]
    places = [(-1, -1)] if _has_stem(model) else []
    places += [(stage, position) for stage, n in enumerate(sizes) for position in range(n)]
    first = -1 if _has_stem(model) else 0
    found = []
    with torch.no_grad(), Tracer() as tracer:
        tracer.start(x)
        for at, (pooled, place) in enumerate(zip(walk(meta, x), places, strict=True)):
            found.append(Stop(first + at, *place, pooled.shape[1], tracer.flops // 2))
    return found


def walk(model: Classifier, x: Tensor) -> Iterator[Tensor]:
    """Images (N, C, H, W) -> pooled features (N, c) after the stem, if there is one, and after
    every block; the last are ``model.features(x)``."""
    if _has_stem(model):
        x = model.stem(x)
        yield average(x)
    ends: list[Tensor] = []
    last = len(model.stages) - 1
    for number, stage in enumerate(model.stages):
        blocks = list(cast("nn.Sequential", stage))
        for block in blocks[:-1]:
            x = block(x)
            yield average(x)
        x = blocks[-1](x)
        ends.append(model.norm(x) if number == last else x)
        yield model.head.pool(ends[-model.spec.feature_stages :]) if number == last else average(x)


def pool_all(
    subject: Subject,
    images: Images,
    folder: Path,
    *,
    tick: Callable[[int], None] = lambda n: None,
) -> list[Path]:
    """One pass over the images, in the fastest precision with float32's range.

    Args:
        subject: its net stays as it is; a copy with its norms folded is run.
        images: all of them.
        folder: is there; gets ``stop_000.npy``, ... of (N, c) float32, mapped into memory, so that
            features take no memory however many there are.
        tick: called with the number of images done.

    Returns:
        The files, in the net's order.
    """
    net = fold_batchnorm(subject.model).to(fast_dtype(torch.device("cpu")))
    net.to(memory_format=torch.channels_last)
    dtype, at = next(net.parameters()).dtype, 0
    files: list[Path] = []
    rows: list[Floats] = []
    for some in torch.split(images.images, forward_batch(torch.device("cpu"))):
        x = some.to(dtype=dtype, memory_format=torch.channels_last)
        with torch.no_grad():
            for number, pooled in enumerate(walk(net, x)):
                if at == 0:
                    files.append(folder / f"stop_{number:03}.npy")
                    shape = (len(images), pooled.shape[1])
                    rows.append(np.lib.format.open_memmap(files[-1], "w+", np.float32, shape))
                rows[number][at : at + len(some)] = pooled.float().numpy()
        at += len(some)
        tick(len(some))
    return files


def probe(features: Floats, images: Images, probing: Probing) -> Floats:
    """(N, K) logits of every image, by a probe that never saw it; its penalty is chosen without it
    as well, and images of one group stay together.

    Raises:
        UsageError: one class, or more images or classes than probes can be judged on.
    """
    targets = labels(images)
    found = cross_validate(
        np.asarray(features), targets, classes=int(targets.max()) + 1, repeats=1,
        folds=probing.folds, seed=probing.seed, groups=images.groups,
    )  # fmt: skip
    logits: Floats = found.logits[0]
    return logits


def labels(images: Images) -> npt.NDArray[np.int64]:
    """(N,) the classes that the images are of, numbered from 0 without gaps."""
    found: npt.NDArray[np.int64] = np.unique(images.targets.numpy(), return_inverse=True)[1]
    return found


def probe_all(
    files: Sequence[Path],
    images: Images,
    probing: Probing,
    *,
    tick: Callable[[int], None] = lambda n: None,
) -> Floats:
    """(stops, N, K) logits of ``probe`` for every file of features; ``tick`` counts them."""
    found = []
    for file in files:
        found.append(probe(np.load(file, mmap_mode="r"), images, probing))
        tick(1)
    return np.stack(found)


def blocks_of(model: Classifier) -> list[nn.Module]:
    """All blocks, first to last."""
    return list(chain.from_iterable(cast("list[nn.Sequential]", list(model.stages))))


def _has_stem(model: Classifier) -> bool:
    return not isinstance(model.stem, nn.Identity)
