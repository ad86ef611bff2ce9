"""The frozen trunk on OpenVINO gives what torch gives."""

from __future__ import annotations

import pytest
import torch

import plusx
from plusx.engines import TorchEngine, openvino_split
from plusx.engines.openvino_split import OpenVINOSplit, TrunkRefused

pytest.importorskip("openvino", reason="extra 'openvino' absent")

CPU = torch.device("cpu")


def images(size: int = 32, n: int = 3) -> torch.Tensor:
    found = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    return found.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("variant", "top_blocks"), [("resnet8_cifar_a", 0), ("resnet8_cifar_a", 1), ("plusx_small", 2),
                                ("plusx_small", 0)]
)  # fmt: skip
def test_trunk_and_top_are_torch_s(variant: str, top_blocks: int) -> None:
    model = plusx.create(variant, weights="none", classes=3, seed=1)
    size = model.spec.image_size
    ours = OpenVINOSplit(model, dtype=torch.float32, top_blocks=top_blocks)
    exact = TorchEngine(model, device=CPU, top_blocks=top_blocks)
    for n in (3, 1, 8):  # any batch
        given = images(size, n)
        found, wanted = ours.trunk(given), exact.trunk(given)
        assert found[0].is_contiguous(memory_format=torch.channels_last)
        for one, two in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            torch.from_numpy(ours.top(*found).logits), torch.from_numpy(exact.top(*wanted).logits),
            rtol=1e-3, atol=1e-4,
        )  # fmt: skip


def test_what_answers_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = plusx.create("resnet8_cifar_a", weights="none", classes=3)
    monkeypatch.setattr(openvino_split, "difference", lambda found, exact: 0.2)
    with pytest.raises(TrunkRefused, match=r"activations in float32 are 20.0% off"):
        OpenVINOSplit(model, dtype=torch.float32, top_blocks=1).trunk(images())


def test_what_cannot_be_converted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("no such layer\nand more")

    monkeypatch.setattr(openvino_split, "trunk_to_openvino", fails)
    model = plusx.create("resnet8_cifar_a", weights="none", classes=3)
    with pytest.raises(TrunkRefused, match=r"^no such layer$"):
        OpenVINOSplit(model, dtype=torch.float32, top_blocks=1).trunk(images())
