from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from plusx.data import Augmentation, Preprocessing, Sample, read_image, read_listing
from plusx.data.records import target_array
from plusx.engines import TorchEngine
from plusx.fit.cache import About, TrunkCache
from plusx.fit.features import Loading, cached_pass, first_pass
from plusx.fit.inputs import CachedViews, Feed, StreamedImages
from plusx.fit.keyed_rows import KeyedRows
from plusx.fit.loop import Hardware, all_logits
from plusx.fit.trunk import ActivationShape, ActivationStore
from plusx.model.surgery import split_trunk
from plusx.runtime import World
from plusx.weights import create

CPU = torch.device("cpu")
SIZE = Preprocessing.for_size(32)


@pytest.fixture
def samples(photos: Path) -> tuple[Sample, ...]:
    return read_listing(photos).part("val")


def streamed(
    samples: tuple[Sample, ...],
    *,
    threads: int = 2,
    trunk: Callable[..., tuple[torch.Tensor, ...]] | None = None,
    seed: int = 0,
) -> StreamedImages:
    return StreamedImages(
        samples, SIZE, targets=target_array(samples, 2, "single"),
        augmentation=Augmentation.light(100, size=32),
        feed=Feed(batch_size=5, threads=threads, seed=seed), trunk=trunk,
        on_bad=lambda bad: pytest.fail(str(bad)),
    )  # fmt: skip


def rows_for(folder: Path, kind: str, images: int, row_bytes: int, views: range) -> KeyedRows:
    keys = np.array([f"{i:016d}".encode() for i in range(images)], dtype="S16")
    about = About(kind, {}, row_bytes, "tiny", "photos")
    return KeyedRows(TrunkCache(folder, 2**30).open(about, keys), keys, views)


def store_for(folder: Path, images: int, shape: ActivationShape, views: int = 1) -> ActivationStore:
    """An empty store, its plain and its augmented rows in entries of their own."""
    plain = rows_for(folder, "plain", images, shape.row_bytes, range(1))
    more = (
        rows_for(folder, "views", images, shape.row_bytes, range(1, views)) if views > 1 else None
    )
    return ActivationStore(shape, images, plain=plain, augmented=more)


@pytest.mark.parametrize("pooled", [0, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_come_back_as_they_were_written(
    tmp_path: Path, dtype: torch.dtype, pooled: int
) -> None:
    store = store_for(tmp_path, 5, ActivationShape((2, 3, 4), pooled, dtype), views=2)
    random = torch.Generator().manual_seed(0)
    activation = torch.randn(5, 2, 3, 4, generator=random).to(dtype)
    features = torch.randn(5, pooled, generator=random)
    images = np.array([4, 0, 2])
    last = activation.to(memory_format=torch.channels_last)
    store.write(0, images, last[:3], features[:3])
    store.write(1, np.array([0, 1]), last[3:], features[3:])
    again, features_again = store.read(np.array([2, 5, 4, 6, 0]))  # view 1 of image i is row 5 + i
    assert again.dtype == dtype
    assert torch.equal(again, activation[[2, 3, 0, 4, 1]])
    assert again.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(features_again, features[[2, 3, 0, 4, 1]])
    size = sum(path.stat().st_size for path in tmp_path.rglob("rows.bin"))
    assert size == 5 * store.shape.row_bytes


@pytest.mark.parametrize("blocks", [1, 2])
def test_what_is_cached_gives_the_logits_of_the_whole_network(
    samples: tuple[Sample, ...], tiny_weights: Path, tmp_path: Path, blocks: int
) -> None:
    model = create(weights=str(tiny_weights)).eval()
    engine = TorchEngine(model, device=CPU, top_blocks=blocks)
    first, _ = engine.trunk(torch.zeros(1, 3, 32, 32))
    shape = ActivationShape(tuple(first.shape[1:]), 0, first.dtype)
    store = store_for(tmp_path, len(samples), shape)
    features = rows_for(tmp_path, "features", len(samples), 4 * 32, range(1))
    passed = cached_pass(
        engine, samples, SIZE, folder=tmp_path, features=features, store=store,
        loading=Loading(batch_size=7),
    )  # fmt: skip
    assert passed.readable.all()
    feed = Feed(batch_size=5, threads=2, seed=0)
    rows = np.arange(len(samples))[None]
    targets = np.array([sample.target for sample in samples])
    cached = CachedViews(store, rows, targets, feed=feed)
    top = split_trunk(model, blocks)[1]
    hardware = Hardware(CPU, torch.float32)
    plain = torch.stack([SIZE(torch.from_numpy(read_image(s.path))) for s in samples])
    with torch.inference_mode():
        direct = model(plain).numpy()
        features = model.features(plain).numpy()
    np.testing.assert_allclose(all_logits(top, cached, hardware), direct, rtol=1e-3, atol=1e-4)
    flowing = streamed(samples, trunk=engine.trunk)
    np.testing.assert_allclose(all_logits(top, flowing, hardware), direct, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(passed.features, features, rtol=1e-3, atol=1e-4)


def test_an_unreadable_image_leaves_a_zero_row(
    samples: tuple[Sample, ...], tiny_weights: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    several = (samples[0], Sample(str(broken), 0), samples[1])
    engine = TorchEngine(create(weights=str(tiny_weights)), device=CPU)
    passed = first_pass(engine, several, SIZE, folder=tmp_path)
    assert passed.readable.tolist() == [True, False, True]
    assert [item.path for item in passed.bad] == [str(broken)]
    assert not passed.features[1].any()
    assert passed.features[2].any()


def test_views_depend_on_seed_epoch_and_image_alone(samples: tuple[Sample, ...]) -> None:
    def epoch(number: int, **how: int) -> dict[int, torch.Tensor]:
        return {
            int(index): image
            for (images,), _, several in streamed(samples, **how).shuffled(number)
            for image, index in zip(images, several, strict=True)
        }

    one, many, other, later = epoch(1, threads=1), epoch(1, threads=3), epoch(1, seed=1), epoch(2)
    assert all(torch.equal(one[i], many[i]) for i in one)
    assert list(one) == list(many) != list(later)
    assert not any(torch.equal(one[i], other[i]) for i in set(one) & set(other))
    assert not any(torch.equal(one[i], later[i]) for i in set(one) & set(later))
    assert len(one) == len(samples) // 5 * 5  # whole batches
    in_order = torch.cat([images for (images,), _, _ in streamed(samples).view(1)])
    assert all(torch.equal(one[i], in_order[i]) for i in one)  # wherever it stands in the epoch


def test_cached_views_take_turns(tmp_path: Path) -> None:
    n, views = 6, 3
    store = store_for(tmp_path, n, ActivationShape((1, 1, 1), 1, torch.float32), views)
    for row in range(n * views):
        view, image = divmod(row, n)
        value = torch.full((1, 1, 1, 1), float(row))
        store.write(view, np.array([image]), value, torch.zeros(1, 1))
    rows = np.arange(views)[:, None] * n + np.arange(n)
    source = CachedViews(store, rows, np.zeros(n, np.int64), feed=Feed(2, 1, 0))
    seen: dict[int, list[int]] = {image: [] for image in range(n)}
    for epoch in range(1, views + 1):
        for (activation, _), _, index in source.shuffled(epoch):
            for value, image in zip(activation.flatten().tolist(), index, strict=True):
                assert int(value) % n == image
                seen[int(image)].append(int(value) // n)
    assert all(sorted(order) == [0, 1, 2] for order in seen.values())
    plain = [int(x) for (activation, _), _, _ in source.ordered() for x in activation.flatten()]
    assert plain == list(range(n))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_processes_share_every_step_out_without_overlap(size: int) -> None:
    one = Feed(5, 1, 0)
    feeds = [Feed(5, 1, 0, World(rank, size)) for rank in range(size)]
    for n in (5, 9, 63, 65):
        whole = one.order(n, 1).reshape(one.steps(n), 5)
        shares = [feed.order(n, 1).reshape(feed.steps(n), feed.share) for feed in feeds]
        for step in range(one.steps(n)):
            assert sorted(np.concatenate([s[step] for s in shares])) == sorted(whole[step])
        later = [feed.order(n, 1, 1) for feed in feeds]
        assert [x.tolist() for x in later] == [s[1:].ravel().tolist() for s in shares]


@pytest.mark.parametrize("n", [1, 5, 9, 63])
def test_processes_evaluate_every_image_once_in_the_batches_of_one(n: int) -> None:
    batches = [list(range(at, min(n, at + 5))) for at in range(0, n, 5)]
    for size in (1, 2, 3):
        found = []
        for rank in range(size):
            mine = Feed(5, 1, 0, World(rank, size)).in_order(n).tolist()
            found += [mine[at : at + 5] for at in range(0, len(mine), 5)]
        assert sorted(found) == batches


def test_fewer_images_than_a_batch_are_one_batch() -> None:
    assert sorted(Feed(32, 1, 0).order(5, 1)) == [0, 1, 2, 3, 4]
    assert len(Feed(2, 1, 0).order(5, 1)) == 4
