"""Which convolutions stay in float32."""

from __future__ import annotations

import torch

from plusx.data import Preprocessing
from plusx.decide import Decision
from plusx.export.graph import Pipeline
from plusx.export.sensitive import SHARE, sensitive
from plusx.model import ResNet, ResNetSpec


def test_a_convolution_behind_an_outlier_is_named(randomise) -> None:
    spec = {"name": "tiny", "block": "basic", "depths": [3], "widths": [8], "stem": "3x3",
            "stem_width": 8, "stem_stride": 1, "stem_pool": "none", "image_size": 32,
            "classes": 4}  # fmt: skip
    net = randomise(ResNet(ResNetSpec.from_dict(spec)))
    pipeline = Pipeline(net, Preprocessing.for_size(32), Decision(), task="single")
    hurt = pipeline.network.stages[0][1].residual
    with torch.no_grad():  # one channel alone needs the range; the next convolution ignores it
        hurt.conv1.bias[0] = 1e4
        hurt.conv2.weight[:, 0] = 0
    image = torch.randint(0, 256, (1, 40, 40, 3), dtype=torch.uint8).numpy()
    found = sensitive(pipeline, [image])
    assert found == ["network.stages.0.1.residual.conv2.weight"]
    assert len(found) == max(1, round(SHARE * 7))
