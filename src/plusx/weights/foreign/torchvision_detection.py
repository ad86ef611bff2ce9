"""torchvision's detectors and segmenters, and DETR: torchvision's own ResNet (v1.5) inside.

Sources: ``torchvision/models/detection``, ``torchvision/models/segmentation``;
https://github.com/facebookresearch/detr, ``models/backbone.py``.
"""

from __future__ import annotations

from plusx.weights.foreign.table import Layout

LAYOUT = Layout(
    name="torchvision-detection",
    marks=(
        r"backbone\.(0\.)?(body\.)?conv1\.",
        r"(rpn|roi_heads|aux_classifier|classifier|transformer|head\.(cl|reg)\w*)\.",
    ),
    prefixes=("backbone.0.body.", "backbone.body.", "backbone."),
    torchvision=True,
    dropped=(
        "backbone.fpn.*",
        "rpn.*",
        "roi_heads.*",
        "head.*",
        "classifier.*",
        "aux_classifier.*",
        "transformer.*",
        "class_embed.*",
        "bbox_embed.*",
        "query_embed.*",
        "input_proj.*",
    ),
    stride="3x3",
    pixels="imagenet",
    what="pyramid, proposals, heads",
)
