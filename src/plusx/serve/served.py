"""One model that is being served: decoding in threads, the network in a thread of its own."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from plusx.data import Preprocessing
from plusx.data.safely import read_safely
from plusx.decide import Decision
from plusx.engines import Outputs
from plusx.errors import ArtifactError, PlusxError, UnreadableImage, UsageError
from plusx.jobs.explain import Explainer
from plusx.jobs.run import read_json
from plusx.predict import Prediction, Predictor
from plusx.runtime import cpu_count
from plusx.serve.batching import Batcher
from plusx.serve.bodies import Given
from plusx.serve.counters import Counters
from plusx.serve.settings import Settings
from plusx.serve.stamp import stamp

Pixels = npt.NDArray[np.float32]
HEAT_SIDE, HEAT_LENGTH = 480, 1920
"""Pixels of a heat map's short side and of its long side, at most."""


@dataclass(frozen=True, eq=False)
class Explained:
    """A heat map as a PNG, and the class it speaks of."""

    label: str
    png: bytes


class NoHeatMap(PlusxError):
    """Why an image has no heat map, in words for who asked; they name no path."""


class Served:
    """One loaded model.

    Args:
        name: in requests.
        path: a run folder, a model folder or an exported file.
        settings: engine, batch and threads.
        counters: get batches.

    Attributes:
        users: requests that are using it; it may be closed at 0.
        figures: the run's headline, as it was when the model was loaded; None where there is none.

    Raises:
        PlusxError: it cannot be loaded, or its answer to a blank image is not finite.
    """

    def __init__(self, name: str, path: Path, settings: Settings, counters: Counters) -> None:
        self.name, self.path, self.users = name, path, 0
        cores = settings.threads or max(1, cpu_count() // settings.workers)
        self._stamp = stamp(path)
        self.predictor = Predictor(
            path,
            engine=settings.engine,
            device=settings.device,
            precision=settings.precision,
            batch_size=settings.max_batch,
            threads=cores,
        )
        self.predictor.confirm(_trial(self.predictor.preprocessing))
        self.engine = self.predictor.engine
        own, limits = self.predictor.preprocessing, settings.limits
        narrow = replace(own.reading.limits, pixels=limits.pixels, file_bytes=limits.body_bytes)
        self._reading = replace(own.reading, limits=narrow)
        self._decoders = ThreadPoolExecutor(
            cores, thread_name_prefix=f"plusx-decode-{name}", initializer=torch.set_num_threads,
            initargs=(1,),
        )  # fmt: skip
        self._patience = limits.request_s / 2  # one slow item must not cost the others' answers
        self._explaining = ThreadPoolExecutor(
            1, thread_name_prefix=f"plusx-explain-{name}", initializer=torch.set_num_threads,
            initargs=(1,),
        )  # fmt: skip
        self._explainer: Explainer | None = None
        self._asked, self._most_asked, self._device = 0, limits.explaining, settings.device
        self._check()
        self.figures = _headline(path / "metrics.json")

        def seen(images: int, seconds: float) -> None:
            counters.batches.labels(name).observe(images)
            counters.network.labels(name).observe(seconds)

        # Where it pays, each core runs a batch of its own, as ``Predictor`` does with files.
        self._one_core = self.engine.parallel and cores > 1
        self._batcher: Batcher[Outputs] = Batcher(
            self._run,
            lanes=cores if self._one_core else 1,
            max_batch=settings.max_batch,
            max_wait_ms=settings.max_wait_ms,
            seen=seen,
            started=lambda: torch.set_num_threads(1 if self._one_core else cores),
        )

    async def predict(self, given: Given, decision: Decision | None) -> Prediction:
        """The answer for one image.

        Raises:
            UnreadableImage: it cannot be decoded.
        """
        loop = asyncio.get_running_loop()
        if self.predictor.whole:  # it takes images of any size, one by one: none is kept waiting
            found = await loop.run_in_executor(self._decoders, self._at_once, given.content)
        else:
            pixels = await loop.run_in_executor(self._decoders, self._read, given.content)
            found = await asyncio.wrap_future(self._batcher.submit(pixels))
        return self.predictor.answers([given.name], found, decision)[0]

    async def explain(self, given: Given, label: str) -> Explained:
        """Where the network looked for ``label``.

        Raises:
            NoHeatMap: the image, or this network, has none, or too many are asked for.
        """
        if self._asked >= self._most_asked:
            raise NoHeatMap("too many heat maps are asked for at the moment; ask again")
        loop = asyncio.get_running_loop()
        self._asked += 1
        try:
            making = loop.run_in_executor(self._explaining, self._explain, given, label)
            return await asyncio.wait_for(making, self._patience)
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise NoHeatMap(f"it was not ready within {self._patience:g} s; ask again") from error
        finally:
            self._asked -= 1

    def close(self) -> None:
        """Finish what is queued and let the threads go."""
        self._batcher.close()
        self._decoders.shutdown()
        self._explaining.shutdown()

    def _read(self, content: bytes) -> Pixels:
        return np.ascontiguousarray(self.predictor.preprocessing(self._image(content)).numpy())

    def _image(self, content: bytes) -> torch.Tensor:
        image, _ = read_safely(
            content,
            channels=self.predictor.preprocessing.channels,
            reading=self._reading,
            timeout_s=self._patience,
        )
        return torch.from_numpy(image)

    def _at_once(self, content: bytes) -> Outputs:
        return self.engine.run(self._image(content)[None].numpy(), one_core=True)

    def _run(self, images: Pixels) -> Sequence[Outputs]:
        found = self.engine.run(images, one_core=self._one_core)
        scores = found.unknown_scores
        return [
            Outputs(
                found.logits[i : i + 1],
                found.features[i : i + 1],
                None if scores is None else scores[i : i + 1],
            )
            for i in range(len(images))
        ]

    def _check(self) -> None:
        """One blank image: a network that answers it with NaN is not served."""
        own = self.predictor.preprocessing
        shape = (own.channels, own.size, own.size)
        blank = np.zeros((1, *shape), np.float32)
        if self.predictor.whole:
            blank = np.zeros(
                (1, *shape[1:], shape[0]), np.float32 if own.takes_floats else np.uint8
            )
        found = self.engine.run(blank)
        if not np.isfinite(found.logits).all():
            raise ArtifactError(f"{self.path}: its answers are not finite; train it again")

    def _explain(self, given: Given, label: str) -> Explained:
        from PIL import Image

        try:
            explainer = self._opened_explainer()
            image = self._image(given.content)
            short, long = sorted(image.shape[:2])
            side = max(1, min(HEAT_SIDE, HEAT_LENGTH * short // long))
            found = explainer.explain_image(image, given.name, label, side=side)
        except UnreadableImage as error:
            raise NoHeatMap(error.reason) from error
        except UsageError as error:
            raise NoHeatMap(str(error)) from error
        file = io.BytesIO()
        Image.fromarray(found.overlay).save(file, format="PNG")
        return Explained(found.label, file.getvalue())

    def _opened_explainer(self) -> Explainer:
        """Opened when it is first needed: it holds the network a second time."""
        if self._explainer is None:
            if stamp(self.path) != self._stamp:  # maps of another network would be wrong
                raise NoHeatMap("the model's files have changed since it was loaded")
            try:
                self._explainer = Explainer(self.path, device=self._device, neighbours=0)
            except ArtifactError as error:  # its words name a path of this server
                raise NoHeatMap("heat maps need the run itself, not an exported file") from error
        return self._explainer


def _headline(path: Path) -> dict[str, Any] | None:
    """What a run may tell strangers of itself: never a path, as the rest of the file may."""
    if not path.is_file():
        return None
    found = read_json(path).get("headline")
    return {"headline": found} if isinstance(found, dict) else None


def _trial(preprocessing: Preprocessing) -> Pixels:
    """Four made-up pictures (4, C, S, S) with coarse and fine parts, always the same."""
    rng, size = np.random.default_rng(0), preprocessing.size
    pictures = []
    for cells in (2, 5, 11, size):
        coarse = torch.from_numpy(rng.uniform(0, 1, (1, preprocessing.channels, cells, cells)))
        grown = torch.nn.functional.interpolate(coarse.float(), (size, size), mode="bilinear")
        pictures.append(preprocessing.normalise(grown[0]).numpy())
    return np.stack(pictures)
