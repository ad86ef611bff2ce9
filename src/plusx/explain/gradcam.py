"""Grad-CAM: which parts of an image speak for a class.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization" (arXiv 1610.02391), by captum's ``LayerGradCam``.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from plusx.errors import UsageError
from plusx.model.classifier import Classifier

COARSEST = 7
"""Least height and width of the maps that are read: below, a heat map says little about where."""


def sharpest_stage(model: Classifier, size: int) -> int:
    """The last stage whose maps still have ``COARSEST`` pixels a side for images of ``size``.

    At 224 pixels that is the last one, as in the paper; small images are read earlier. Where no
    stage is so fine, the first.

    Raises:
        UsageError: the network has no maps to read, as ``timm:NAME``, which is one block.
    """
    with torch.no_grad():
        was = model.training
        parameter = next(model.parameters())
        blank = torch.zeros(1, model.spec.in_channels, size, size,
                            device=parameter.device, dtype=parameter.dtype)  # fmt: skip
        maps = list(model.eval().pyramid(blank).values())
        model.train(was)
    if max(min(m.shape[2:]) for m in maps) == 1:
        raise UsageError(
            f"{model.spec.name}: its maps have one pixel, which shows no place in the image; "
            "explain a network whose stages plusx knows (plusx models lists them)"
        )
    fine = [i for i, m in enumerate(maps) if min(m.shape[2:]) >= COARSEST]
    return fine[-1] if fine else 0


def grad_cam(
    model: Classifier, images: Tensor, classes: Tensor, *, stage: int | None = None
) -> Tensor:
    """Heat maps of what speaks for one class in each image.

    Works on frozen networks; the model's mode, gradients and parameters are left as they were.

    Args:
        model: any network of plusx, not folded for another precision than the images'.
        images: (N, C, H, W), preprocessed.
        classes: (N,) int64, the class to explain for each image.
        stage: whose maps are read; by default ``sharpest_stage``.

    Returns:
        (N, H, W) float32 on the CPU: 0 where nothing speaks for the class, 1 where most does; all
        0 where nothing does anywhere.

    Raises:
        UsageError: shapes do not fit, or there is no such stage or class.
    """
    from captum.attr import LayerGradCam

    if images.ndim != 4 or classes.shape != images.shape[:1]:
        raise UsageError(
            f"images {tuple(images.shape)} and classes {tuple(classes.shape)} do not fit: give "
            "(N, C, H, W) and (N,)"
        )
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < model.spec.classes:
        raise UsageError(f"classes {classes.tolist()} must lie in 0..{model.spec.classes - 1}")
    chosen = sharpest_stage(model, images.shape[-1]) if stage is None else stage
    if not 0 <= chosen < len(model.stages):
        raise UsageError(f"stage {stage!r} must lie in 0..{len(model.stages) - 1}")
    was = model.training
    model.eval()
    try:
        # captum warns of a missing gradient rather than failing; nothing here lacks one.
        explainer = LayerGradCam(model, cast("nn.Sequential", model.stages[chosen]))
        with torch.enable_grad():
            maps = explainer.attribute(images, target=classes.to(images.device),
                                       relu_attributions=True)  # fmt: skip
    finally:
        model.train(was)
    heat = functional.interpolate(maps.detach().float(), images.shape[-2:], mode="bilinear")[:, 0]
    most = heat.amax(dim=(1, 2), keepdim=True)
    return (heat / most.clamp_min(1e-12)).cpu()
