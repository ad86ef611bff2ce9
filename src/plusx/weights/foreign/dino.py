"""DINO: the teacher's (or student's) ``backbone.``; torchvision's ResNet (v1.5).

Source: https://github.com/facebookresearch/dino, ``main_dino.py`` and ``utils.py``.
"""

from __future__ import annotations

from plusx.weights.foreign.table import Layout

LAYOUT = Layout(
    name="dino",
    marks=(r"backbone\.conv1\.", r"head\.(mlp|last_layer)\b"),
    prefixes=("backbone.",),
    torchvision=True,
    dropped=("head.mlp.*", "head.last_layer.*"),
    stride="3x3",
    pixels="imagenet",
    what="projection",
)
