"""Networks of other families export too: any batch, the same answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import plusx
from plusx.data import Preprocessing
from plusx.decide import Decision
from plusx.errors import UsageError
from plusx.export.graph import Pipeline, example
from plusx.export.onnx_file import to_onnx
from plusx.export.program import to_program


@pytest.mark.parametrize("name", ["cnn", "resnet20_cifar_a", "timm:test_efficientnet"])
def test_other_families(name: str) -> None:
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="extra 'timm' absent")
    net = plusx.create(name, classes=3, weights="none").eval()
    size = net.spec.image_size
    p = Preprocessing.for_size(size)
    pipeline = Pipeline(net, None, Decision(), task="single")
    program = to_program(pipeline, example(p, preprocessed=True), name=name)
    run = program.module()
    for n in (1, 5):
        x = torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(n))
        with torch.no_grad():
            torch.testing.assert_close(run(x)["logits"], net(x), rtol=1e-3, atol=1e-4)


class Stubborn(nn.Module):
    """A network that looks at its values, which no tracer can follow."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) if float(x.mean()) > 0 else -self.inner(x)


def test_what_cannot_be_traced_is_refused_in_one_line() -> None:
    net = plusx.create("resnet20_cifar_a", classes=3, weights="none").eval()
    net.stem = Stubborn(net.stem)
    p = Preprocessing.for_size(32)
    with pytest.raises(UsageError, match=r"it cannot be exported: torch\.export says: .+") as told:
        to_program(Pipeline(net, None, Decision(), task="single"),
                   example(p, preprocessed=True), name="it")  # fmt: skip
    assert "\n" not in str(told.value)


def test_onnx_of_half_precision_keeps_float_outputs() -> None:
    pytest.importorskip("onnx", reason="extra 'onnx' absent")
    import onnx

    net = plusx.create("resnet20_cifar_a", classes=3, weights="none").eval()
    pipeline = Pipeline(net, None, Decision(), task="single", dtype=torch.float16)
    like = example(Preprocessing.for_size(32), preprocessed=True)
    model = to_onnx(to_program(pipeline, like, name="it"), name="it")
    kinds = {one.name: one.type.tensor_type.elem_type for one in model.graph.output}
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT}
    half = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT16]
    assert len(half) >= 19
