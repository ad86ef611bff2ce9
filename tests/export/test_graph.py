"""The resize as matrix products is the one that plusx does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from plusx.data import Preprocessing
from plusx.data.reading import Reading
from plusx.decide import FARTHEST, Decision, Unknown
from plusx.export.graph import Pipeline, PixelsToInput, UnknownScore
from plusx.model import ResNet, ResNetSpec
from plusx.weights.exported import OUTPUTS, PREPROCESSED

SIDES = [(37, 50), (50, 37), (36, 36), (32, 32), (20, 21), (31, 33), (9, 300), (300, 9), (1, 1),
         (900, 30), (30, 901), (7, 120)]  # fmt: skip


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("mode", "size", "resize"),
    [("short", 32, 36), ("short", 33, 33), ("squish", 32, 32), ("squish", 20, 33),
     ("pad", 32, 32), ("pad", 24, 40), ("pad", 31, 32)],
)  # fmt: skip
def test_equals_preprocessing(mode: str, size: int, resize: int, interpolation: str) -> None:
    p = Preprocessing(size, resize, interpolation, mode=mode)  # type: ignore[arg-type]
    module = PixelsToInput(p)
    for height, width in SIDES:
        images = noise(2, height, width, 3)
        wanted = torch.stack([p(one) for one in images])
        torch.testing.assert_close(module(images), wanted, rtol=0, atol=1e-4)


def test_a_large_photograph_is_cut_where_preprocessing_cuts_it() -> None:
    p = Preprocessing.for_size(224)
    images = noise(1, 1201, 1777, 3)
    torch.testing.assert_close(PixelsToInput(p)(images)[0], p(images[0]), rtol=0, atol=3e-4)


def test_float_images_with_missing_values() -> None:
    p = Preprocessing.for_size(32, channels=5)
    p = replace(p, reading=Reading(bands=(1, 2, 3, 4, 5)))
    assert p.takes_floats
    image = noise(40, 50, 5).float() * 1.01
    image[3:9, 4:5, 2] = float("nan")
    torch.testing.assert_close(PixelsToInput(p)(image[None])[0], p(image), rtol=0, atol=1e-4)


def test_positions_survive_bfloat16_weights() -> None:
    """What a runtime in bfloat16 does to the weights costs grey levels, not pixels."""
    p = Preprocessing(32, 36)
    module = PixelsToInput(p)
    images = noise(1, 700, 1000, 3)
    for name, value in module.named_buffers():
        if name not in ("mean", "std"):
            assert not value.is_floating_point(), f"{name}: positions are whole numbers"
    rounded = module(images).bfloat16().float()
    assert (rounded - p(images[0])).abs().max() < 0.05


def test_unknown_score_is_that_of_the_decision() -> None:
    rng = np.random.default_rng(0)
    bank = rng.normal(size=(40, 16)).astype(np.float16)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    unknown = Unknown(0.5, 0.05, 7, bank)
    features = rng.normal(size=(9, 16)).astype(np.float32)
    features[0] = 0
    features[1] *= 1e30
    features[2, 3] = np.inf
    features[3, 3] = np.nan
    found = UnknownScore(unknown)(torch.from_numpy(features)).numpy()
    np.testing.assert_allclose(found, unknown.score(features), atol=1e-6)
    assert found[2] == found[3] == FARTHEST


@pytest.mark.parametrize("task", ["single", "multi"])
def test_pipeline_gives_probabilities_logits_and_features(task: str, randomise) -> None:
    spec = {"name": "tiny", "block": "basic", "depths": [1, 1], "widths": [8, 16], "stem": "3x3",
            "stem_width": 8, "stem_stride": 1, "stem_pool": "none", "image_size": 32,
            "classes": 4}  # fmt: skip
    net = randomise(ResNet(ResNetSpec.from_dict(spec)))
    p = Preprocessing.for_size(32)
    decision = Decision(temperature=1.7 if task == "single" else 1.0)
    pipeline = Pipeline(net, p, decision, task=task, inner=True)  # type: ignore[arg-type]
    images = noise(3, 40, 50, 3)
    with torch.no_grad():
        found = pipeline(images)
        inputs = torch.stack([p(one) for one in images])
        logits = net(inputs)
    assert list(found) == [*OUTPUTS, PREPROCESSED]
    torch.testing.assert_close(found["logits"], logits, rtol=1e-4, atol=1e-4)
    shares = (logits / 1.7).softmax(1) if task == "single" else logits.sigmoid()
    torch.testing.assert_close(found["probabilities"], shares, rtol=0, atol=1e-4)
    assert found["features"].shape == (3, 16)
    assert net.training is False
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in pipeline.network.modules())


@pytest.mark.parametrize("bank_images", [40, 3_000])
def test_a_graph_with_a_large_bank_can_be_quantised(bank_images: int, randomise) -> None:
    """NNCF cannot read a graph that converts what it stores; small tensors are folded away."""
    pytest.importorskip("nncf", reason="extra 'int8' absent")
    pytest.importorskip("onnx", reason="extra 'onnx' absent")
    from plusx.export.onnx_file import to_onnx
    from plusx.export.program import to_program
    from plusx.export.quantise import quantise

    spec = {"name": "tiny", "block": "basic", "depths": [1, 1], "widths": [8, 64], "stem": "3x3",
            "stem_width": 8, "stem_stride": 1, "stem_pool": "none", "image_size": 32,
            "classes": 4}  # fmt: skip
    net = randomise(ResNet(ResNetSpec.from_dict(spec)))
    bank = np.random.default_rng(0).normal(size=(bank_images, 64)).astype(np.float16)
    bank /= np.linalg.norm(bank, axis=1, keepdims=True)
    decision = Decision(unknown=Unknown(0.5, 0.05, 7, bank))
    pipeline = Pipeline(net, Preprocessing.for_size(32), decision, task="single")
    images = noise(2, 40, 50, 3)
    model = to_onnx(to_program(pipeline, images, name="tiny"), name="tiny")
    stored = {tensor.name for tensor in model.graph.initializer}
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert not [node.name for node in casts if node.input[0] in stored]
    quantised = quantise(model, [one[None].numpy() for one in noise(4, 40, 50, 3)])
    assert any(node.op_type == "QuantizeLinear" for node in quantised.graph.node)
