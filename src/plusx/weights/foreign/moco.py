"""MoCo v1, v2 and v3: the trained encoder, not its momentum twin; torchvision's ResNet (v1.5).

Sources: https://github.com/facebookresearch/moco, ``moco/builder.py``;
https://github.com/facebookresearch/moco-v3, ``moco/builder.py``.
"""

from __future__ import annotations

from plusx.weights.foreign.table import Layout

LAYOUT = Layout(
    name="moco",
    marks=(r"(encoder_q|base_encoder)\.",),
    prefixes=("encoder_q.", "base_encoder."),
    torchvision=True,
    # Their fc is the projection for the contrast, not a classifier.
    dropped=(
        "encoder_q.fc.*",
        "base_encoder.fc.*",
        "encoder_k.*",
        "momentum_encoder.*",
        "predictor.*",
        "queue",
        "queue_ptr",
    ),
    stride="3x3",
    pixels="imagenet",
    what="projection, momentum twin, queue",
)
