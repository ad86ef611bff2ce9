"""SimCLR, BYOL and others in the manner of lightly, solo-learn and lucidrains/byol-pytorch.

torchvision's ResNet (v1.5) below ``backbone.``, ``encoder.`` or ``online_encoder.``, or its
children in a Sequential.

Sources: https://github.com/lightly-ai/lightly, ``examples/pytorch``;
https://github.com/vturrisi/solo-learn, ``solo/methods``;
https://github.com/lucidrains/byol-pytorch.
"""

from __future__ import annotations

from plusx.weights.foreign.table import Layout

LAYOUT = Layout(
    name="selfsupervised",
    marks=(r"(backbone|encoder|online_encoder|online_network)\.",),
    prefixes=(
        "online_encoder.net.",
        "online_encoder.encoder.",
        "online_network.encoder.",
        "online_encoder.",
        "online_network.",
        "backbone.",
        "encoder.",
    ),
    # nn.Sequential(*list(resnet.children())[:-1])
    table=(
        ("stem.conv", "0"),
        ("stem.norm", "1"),
        ("stages.{S}.{B}.residual.conv{K}", "{S+4}.{B}.conv{K}"),
        ("stages.{S}.{B}.residual.norm{K}", "{S+4}.{B}.bn{K}"),
        ("stages.{S}.{B}.shortcut.conv", "{S+4}.{B}.downsample.0"),
        ("stages.{S}.{B}.shortcut.norm", "{S+4}.{B}.downsample.1"),
    ),
    torchvision=True,
    dropped=(
        "*projection_head.*",
        "*projection_head_momentum.*",
        "*projector.*",
        "*prediction_head.*",
        "*predictor.*",
        "*projection.*",
        "*prototypes.*",
        "momentum_*",
        "backbone_momentum.*",
        "target_*",
        "head.*",
        "fc.*",
        "classifier.*",
        "criterion.*",
        "loss.*",
        "queue*",
        "memory_bank*",
    ),
    stride="3x3",
    pixels="imagenet",
    what="projection, prediction, momentum twin",
)
