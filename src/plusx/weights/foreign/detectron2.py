"""detectron2: the ResNet below a detector, with or without a feature pyramid.

Nets of MSRA (Caffe lineage) stride the 1x1 and want BGR, those converted from torchvision stride
the 3x3 and want RGB (``STRIDE_IN_1X1``, ``PIXEL_MEAN`` and ``INPUT.FORMAT`` of the config); the
file tells neither, so both are asked for.

Sources: ``detectron2/modeling/backbone/resnet.py``, ``tools/convert-torchvision-to-d2.py`` and
``detectron2/config/defaults.py`` of https://github.com/facebookresearch/detectron2.
"""

from __future__ import annotations

from plusx.weights.foreign.table import Layout, Pairs


def _stage(there: str, stage: str) -> Pairs:
    return (
        (f"stages.{stage}.{{B}}.residual.conv{{K}}", f"{there}.{{B}}.conv{{K}}"),
        (f"stages.{stage}.{{B}}.residual.norm{{K}}", f"{there}.{{B}}.conv{{K}}.norm"),
        (f"stages.{stage}.{{B}}.shortcut.conv", f"{there}.{{B}}.shortcut"),
        (f"stages.{stage}.{{B}}.shortcut.norm", f"{there}.{{B}}.shortcut.norm"),
    )


LAYOUT = Layout(
    name="detectron2",
    marks=(r"(backbone\.)?(bottom_up\.)?stem\.conv1\.", r"(backbone\.)?(bottom_up\.)?res2\.0\."),
    prefixes=("backbone.bottom_up.", "backbone.", ""),
    table=(
        ("stem.conv", "stem.conv1"),
        ("stem.norm", "stem.conv1.norm"),
        *_stage("res{S+2}", "{S}"),
        ("head.fc", "stem.fc"),
        ("head.fc", "linear"),
    ),
    # Detectors without a pyramid (C4) keep the last stage in their head.
    outside=_stage("roi_heads.res5", "3"),
    dropped=(
        "pixel_mean",
        "pixel_std",
        "backbone.fpn_*",
        "backbone.top_block.*",
        "proposal_generator.*",
        "roi_heads.box_*",
        "roi_heads.mask_*",
        "roi_heads.keypoint_*",
        "sem_seg_head.*",
        "head.*",
        "anchor_generator.*",
    ),
    what="pyramid, proposals, heads",
)
