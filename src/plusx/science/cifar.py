"""Small labelled images, held in memory as one tensor: what the studies train on.

A study trains many nets on the same images, so they are decoded once; order and augmentation work
on tensors. Written for CIFAR-10 (Krizhevsky 2009) in any form that plusx reads, as a tar file of
it, or as its own binary files (https://www.cs.toronto.edu/~kriz/cifar.html, "binary version"; the
pickled "python version" is refused, since reading it would run what it holds).
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from plusx.data import Listing, Preprocessing, Sample, load_batches, read_listing
from plusx.data.folder import is_image_name
from plusx.data.loader import decode
from plusx.errors import DataError

PathLike = str | os.PathLike[str]

SIDE = 32
"""Height and width, in pixels."""

PAD = 4
"""Of zeros on each side before the random crop (He et al. 2015, section 4.2)."""

HELD_OUT = 0.2
"""Share of the images that are kept for testing where the data has no val or test split."""

_RECORD = 1 + 3 * SIDE * SIDE
_NAMES = ("airplane", "automobile", "bird", "cat", "deer",
          "dog", "frog", "horse", "ship", "truck")  # fmt: skip


@dataclass(frozen=True)
class Part:
    """Images with their classes: (N, 3, 32, 32) uint8 and (N,) int64."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def take(self, n: int) -> Part:
        """The first ``n``, or all where there are fewer."""
        return Part(self.images[:n], self.targets[:n])


@dataclass(frozen=True)
class SmallImages:
    """A data set in memory.

    Attributes:
        classes: names, sorted.
        train, test: in an order that was shuffled once, from a fixed seed: the first n of either
            are a fixed random sample.
        mean, std: (3,) float32 of the training images, on the scale 0..255.
    """

    classes: tuple[str, ...]
    train: Part
    test: Part
    mean: Tensor
    std: Tensor

    def normalise(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> the same shape in float32, of mean 0 and variance 1 by channel."""
        shape = (1, 3, 1, 1)
        return (images.float() - self.mean.view(shape)) / self.std.view(shape)

    def at_most(self, train: int | None, test: int | None) -> SmallImages:
        """With fewer images; mean and std stay those of all."""
        return SmallImages(
            self.classes,
            self.train if train is None else self.train.take(train),
            self.test if test is None else self.test.take(test),
            self.mean,
            self.std,
        )

    def only(self, numbers: Iterable[int]) -> SmallImages:
        """With the images of these classes alone, numbered anew; mean and std stay."""
        kept = torch.tensor(list(numbers))
        place = torch.full((len(self.classes),), -1)
        place[kept] = torch.arange(len(kept))

        def part(of: Part) -> Part:
            at = (place[of.targets] >= 0).nonzero()[:, 0]
            return Part(of.images[at], place[of.targets[at]])

        names = tuple(self.classes[int(i)] for i in kept)
        return SmallImages(names, part(self.train), part(self.test), self.mean, self.std)


def load_small_images(sources: Sequence[PathLike], *, threads: int = 1) -> SmallImages:
    """Read images once, at 32x32 pixels.

    Args:
        sources: folders or manifests as ``plusx train`` takes them, tar files of such a folder,
            or CIFAR-10's folder of ``*.bin`` files. Several are put together (train in one, test
            in the other). What is not ``train`` is for testing; without splits a fifth is.
        threads: how many decode.

    Raises:
        DataError: nothing can be read, an image is damaged, or there are fewer than two classes.
    """
    if not sources:
        raise DataError("--data names no source; give a folder, a manifest or a tar file")
    parts = [_read(os.fspath(source), threads) for source in sources]
    classes = tuple(sorted({name for names, _, _, _ in parts for name in names}))
    if len(classes) < 2:
        raise DataError(
            f"{os.fspath(sources[0])}: shows {len(classes)} class; a study trains classifiers and "
            "needs two or more"
        )
    images = torch.cat([images for _, images, _, _ in parts])
    places = [torch.tensor([classes.index(n) for n in names])[t] for names, _, t, _ in parts]
    targets, split = torch.cat(places), [s for _, _, _, splits in parts for s in splits]
    return _arranged(classes, Part(images, targets), split)


def _arranged(classes: tuple[str, ...], both: Part, split: Sequence[str | None]) -> SmallImages:
    """Shuffled once, and parted."""
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(both))
    if any(name == "train" for name in split) and any(name != "train" for name in split):
        trains = np.array([name == "train" for name in split])[order]
    else:
        trains = np.arange(len(both)) >= round(HELD_OUT * len(both))
    mine, rest = torch.from_numpy(order[trains]), torch.from_numpy(order[~trains])
    train, test = (Part(both.images[at], both.targets[at]) for at in (mine, rest))
    return SmallImages(classes, train, test, *_moments(train.images))


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, part by part: all of it as float would be large."""
    first, second = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for start in range(0, len(images), 1000):
        pixels = images[start : start + 1000].double()
        first += pixels.sum((0, 2, 3))
        second += pixels.square().sum((0, 2, 3))
    count = images.numel() / 3
    mean = first / count
    deviation = (second / count - mean.square()).clamp_min(0).sqrt()
    return mean.float(), deviation.float().clamp_min(1e-3)


def sample_images(
    sources: Sequence[PathLike], rules: Preprocessing, n: int
) -> tuple[Tensor, list[str]]:
    """At most ``n`` images as a trained net wants them: held-out ones where there are splits.

    Args:
        sources: as in ``load_small_images``.
        rules: the net's own preprocessing.
        n: drawn from a fixed seed.

    Returns:
        (N, C, H, W) float32, normalised, and the N names of their classes.

    Raises:
        DataError: nothing can be read.
    """
    images, names = list[Tensor](), list[str]()
    share = -(-n // max(1, len(sources)))
    for source in [os.fspath(one) for one in sources]:
        if files := _binary_files(Path(source)):
            classes, pixels, targets, splits = _binary(files)
            for at in _drawn(splits, share):
                images.append(rules(pixels[at].permute(1, 2, 0)))
                names.append(classes[int(targets[at])])
            continue
        with _listing(source) as listing:
            for at in _drawn([s.split for s in listing.samples], share):
                sample = listing.samples[at]
                images.append(rules(decode(sample, rules)))
                names.append(listing.classes[sample.targets[0]])
    return torch.stack(images), names


def _drawn(splits: Sequence[str | None], n: int) -> list[int]:
    held = [i for i, split in enumerate(splits) if split in ("val", "test")]
    of = np.array(held or range(len(splits)))
    return [int(i) for i in np.random.Generator(np.random.PCG64(0)).permutation(of)[:n]]


_Read = tuple[tuple[str, ...], Tensor, Tensor, list[str | None]]
"""Classes, images, targets, splits."""


def _read(source: str, threads: int) -> _Read:
    if files := _binary_files(Path(source)):
        return _binary(files)
    with _listing(source) as listing:
        return _listed(listing, source, threads)


def _binary_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    if (folder / "data_batch_1").is_file():
        raise DataError(
            f"{folder}: is CIFAR's python version, pickled files that may run anything; take "
            "its binary version, or images in folders"
        )
    return sorted([*folder.glob("data_batch_*.bin"), *folder.glob("test_batch.bin")])


@contextmanager
def _listing(source: str) -> Iterator[Listing]:
    """The images of a source; those of a tar file exist until the end of the block."""
    with tempfile.TemporaryDirectory() as place:
        tarred = Path(source).is_file() and tarfile.is_tarfile(source)
        if tarred:
            _unpack(Path(source), Path(place))
        listing = read_listing(place if tarred else source, training=False)
        if listing.task == "multi":
            raise DataError(f"{source}: has several labels an image; the studies need one")
        yield listing


def _unpack(archive: Path, place: Path) -> None:
    """The image files of a tar file; links, devices and paths that lead out of it are left."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = PurePosixPath(member.name)
                if not member.isfile() or name.is_absolute() or ".." in name.parts:
                    continue
                stream = tar.extractfile(member) if is_image_name(name.name) else None
                if stream is not None:
                    target = place.joinpath(*name.parts)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(stream.read())
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive}: is a damaged tar file ({error})") from error


def _listed(listing: Listing, source: str, threads: int) -> _Read:
    # only the size is asked for here: as it comes out, on the scale 0..1
    rules = replace(Preprocessing.for_size(SIDE), mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))

    def read(sample: Sample, _: int) -> Tensor:
        shaped: Tensor = rules(decode(sample, rules))
        return (shaped * 255).round().clamp(0, 255).to(torch.uint8)

    images = []
    for batch in load_batches(listing.samples, read, batch_size=256, threads=threads):
        if batch.bad:
            bad = batch.bad[0]
            raise DataError(f"{source}: {bad.path} is unreadable ({bad.reason}); remove it")
        images.append(batch.images)
    targets = torch.tensor([sample.targets[0] for sample in listing.samples])
    return listing.classes, torch.cat(images), targets, [s.split for s in listing.samples]


def _binary(files: Sequence[Path]) -> _Read:
    """CIFAR-10's binary version: records of one label byte and 3,072 pixels."""
    images, targets, split = [], [], list[str | None]()
    for path in files:
        content = np.fromfile(path, np.uint8)
        if not len(content) or len(content) % _RECORD or content[::_RECORD].max() >= len(_NAMES):
            raise DataError(f"{path}: is no file of CIFAR-10's binary version (records of 3,073)")
        records = content.reshape(-1, _RECORD)
        targets.append(torch.from_numpy(records[:, 0].astype(np.int64)))
        pixels = np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, SIDE, SIDE)
        images.append(torch.from_numpy(pixels))
        split += ["test" if path.name.startswith("test") else "train"] * len(records)
    return _NAMES, torch.cat(images), torch.cat(targets), split


def augment(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Four pixels of padding, a random crop and a random flip (He et al. 2015, section 4.2).

    Zeros are padded before the mean is taken off, so the border is black.

    Args:
        images: (N, C, H, W) uint8.
        rng: three draws an image, whatever comes out.

    Returns:
        (N, C, H, W) uint8.
    """
    n, _, height, width = images.shape
    dy, dx = (torch.from_numpy(rng.integers(0, 2 * PAD + 1, n)) for _ in range(2))
    flip = torch.from_numpy(rng.random(n) < 0.5)
    padded = functional.pad(images, (PAD, PAD, PAD, PAD))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = windows[torch.arange(n), :, dy, dx]
    return torch.where(flip.view(-1, 1, 1, 1), cropped.flip(3), cropped)
