"""What tests may skip for, and the data they share.

A test may skip for exactly: shared data absent, a browser, a GPU, or a named extra. Under CI any
other skip fails the run; the list is printed either way.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

if TYPE_CHECKING:
    from plusx import Run

ALLOWED = re.compile(r"shared data absent|browser absent|GPU absent|extra '\w+' absent")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with ``data/`` and ``weights/`` that PLUSX_TEST_DATA names."""
    root = os.environ.get("PLUSX_TEST_DATA", "")
    if not root or not Path(root, "data").is_dir():
        pytest.skip("shared data absent (set PLUSX_TEST_DATA to a folder with data/ and weights/)")
    return Path(root)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def _randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms as after training (statistics, scale and shift all random), evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.num_features
            module.running_mean.copy_(torch.randn(size, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
            with torch.no_grad():
                module.weight.copy_(torch.rand(size, generator=generator) * 0.5 + 0.25)
                module.bias.copy_(torch.randn(size, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(name="randomise")
def randomise_fixture():
    """A function that gives a model random norms and puts it in evaluation mode."""
    return _randomise


TINY = {"name": "tiny", "block": "basic", "depths": [1, 1, 1], "widths": [8, 16, 32],
        "stem": "3x3", "stem_width": 8, "stem_stride": 1, "stem_pool": "none",
        "image_size": 32}  # fmt: skip
"""A network that trains in a second."""


def stripes(folder: Path, counts: dict[str, int], *, seed: int = 0, contrast: float = 45) -> Path:
    """Noisy 32x32 pictures below ``folder/<name>/``; stripes lie across where the class (the last
    part of the name) begins with "a", and stand upright elsewhere."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        place = folder / name
        place.mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(40, 216, (32, 32, 3)).astype(float)
            wave = (((np.arange(32) + rng.integers(8)) // 4 % 2) * 2 - 1) * contrast
            pixels += wave[:, None, None] if place.name.startswith("a") else wave[None, :, None]
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(place / f"{number:03}.png")
    return folder


@pytest.fixture(scope="session")
def make_stripes() -> Callable[..., Path]:
    """See ``stripes``."""
    return stripes


@pytest.fixture(scope="session")
def tiny_weights(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of the tiny net for 5 classes: random weights, with BatchNorm statistics as
    if from an earlier training."""
    import torch

    from plusx.data import Preprocessing, read_image
    from plusx.model import ResNet, ResNetSpec
    from plusx.weights import save_artifact

    folder = tmp_path_factory.mktemp("tiny") / "model"
    preprocessing = Preprocessing.for_size(32)
    pictures = [preprocessing(torch.from_numpy(read_image(path)))
                for path in sorted(photos.rglob("*.png"))[::3]]  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = ResNet(ResNetSpec.from_dict(TINY | {"classes": 5})).train()
        with torch.no_grad():
            for _ in range(20):
                net(torch.stack(pictures))
    save_artifact(folder, net, classes="vwxyz", preprocessing=preprocessing,
                  provenance={}, card="")  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/val/<class>/`` with 32 and 16 pictures of two classes."""
    counts = {"train/across": 32, "train/upright": 32, "val/across": 16, "val/upright": 16}
    return stripes(tmp_path_factory.mktemp("data") / "photos", counts)


QUICK: dict[str, Any] = {"epochs": 6, "lr": 2e-3, "batch_size": 16, "label_smoothing": 0.0,
                         "patience": 0, "views": 2, "device": "cpu", "precision": "float32",
                         "threads": 2}  # fmt: skip
"""Options of a fine-tuning that beats the probe on ``photos``."""


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
    """See ``QUICK``."""
    return dict(QUICK)


@pytest.fixture(scope="session")
def finished(photos: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished fine-tuning of the last two blocks; read it, don't write to it."""
    import plusx

    out = tmp_path_factory.mktemp("finished") / "run"
    return plusx.train(photos, weights=tiny_weights, out=out, **QUICK)


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says why it failed; notes may stand before it."""
        assert self.code == 2, self
        lines = [line for line in self.err.splitlines() if not line.startswith("note: ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: "), self.err
        return lines[0]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs ``plusx ...`` in this process."""

    def call(*arguments: object) -> Said:
        from plusx.__main__ import main

        monkeypatch.setattr(sys, "argv", ["plusx", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    return call


def _reason(report: pytest.TestReport) -> str:
    return str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every skip with its reason."""
    skipped = terminalreporter.stats.get("skipped", [])
    wrong = [r for r in skipped if not ALLOWED.search(_reason(r))]
    terminalreporter.write_line(f"skips: {len(skipped)}, of them not allowed: {len(wrong)}")
    for report in wrong:
        terminalreporter.write_line(f"  not allowed: {report.nodeid}: {_reason(report)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Under CI, fail on a skip that is not on the list."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("CI") or terminal is None:
        return
    skipped = terminal.stats.get("skipped", [])
    if any(not ALLOWED.search(_reason(r)) for r in skipped) and session.exitstatus == 0:
        session.exitstatus = 1
