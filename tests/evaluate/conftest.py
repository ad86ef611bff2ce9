from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from plusx.evaluate import Predictions


def _synthetic(
    n: int, k: int, *, signal: float = 2.0, seed: int = 0, images_per_group: int = 0
) -> Predictions:
    """n images of k classes; the larger ``signal``, the more are right."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), targets] += signal
    groups = None
    if images_per_group:
        groups = tuple(f"g{i // images_per_group}" for i in range(n))
    return Predictions(
        logits=logits.astype(np.float32),
        targets=targets,
        paths=tuple(f"{i}.jpg" for i in range(n)),
        classes=tuple(f"c{i:04d}" for i in range(k)),
        groups=groups,
    )


def _called(pairs: list[tuple[int, int]], k: int) -> Predictions:
    """Images given as (true, predicted) pairs."""
    targets = np.array([true for true, _ in pairs], dtype=np.int64)
    logits = np.zeros((len(pairs), k), dtype=np.float32)
    logits[np.arange(len(pairs)), [called for _, called in pairs]] = 4.0
    return Predictions(
        logits=logits,
        targets=targets,
        paths=tuple(f"{i}.jpg" for i in range(len(pairs))),
        classes=tuple(f"c{i}" for i in range(k)),
    )


@pytest.fixture
def synthetic() -> Callable[..., Predictions]:
    return _synthetic


@pytest.fixture
def called() -> Callable[[list[tuple[int, int]], int], Predictions]:
    return _called
