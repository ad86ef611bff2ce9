"""OpenMMLab (mmdetection, mmsegmentation, mmpretrain): torchvision's names below ``backbone.``.

``style='pytorch'`` strides the 3x3, ``style='caffe'`` the 1x1 and usually wants BGR; the tensors
tell neither, so both are asked for.

Source: https://github.com/open-mmlab/mmdetection, ``mmdet/models/backbones/resnet.py``.
"""

from __future__ import annotations

from plusx.weights.foreign.table import Layout

LAYOUT = Layout(
    name="mmdetection",
    marks=(
        r"backbone\.conv1\.",
        r"(neck|rpn_head|roi_head|bbox_head|mask_head|decode_head|head\.fc)\.",
    ),
    prefixes=("backbone.",),
    outside=(("head.fc", "head.fc"),),
    torchvision=True,
    dropped=(
        "neck.*",
        "rpn_head.*",
        "roi_head.*",
        "bbox_head.*",
        "mask_head.*",
        "decode_head.*",
        "auxiliary_head.*",
        "data_preprocessor.*",
    ),
    what="neck, heads",
)
