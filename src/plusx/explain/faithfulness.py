"""Does a heat map point at what the network uses? Blur it away and see.

The deletion curve of Petsiuk, Das & Saenko 2018 ("RISE", arXiv 1806.07421, section 4.3), with
patches instead of pixels and a blurred fill, which stays closer to photographs than grey does.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from plusx.errors import UsageError
from plusx.model.classifier import Classifier


@torch.no_grad()
def deletion_curves(
    model: Classifier,
    images: Tensor,
    classes: Tensor,
    heat: Tensor,
    *,
    patch: int = 32,
    steps: int | None = None,
) -> Tensor:
    """Probability of the class while patches are blurred away, the hottest first.

    Args:
        model: the network, in evaluation mode during the call.
        images: (N, C, H, W), preprocessed; H and W multiples of ``patch``.
        classes: (N,) int64.
        heat: (N, H, W); what decides the order of the patches (random numbers for a comparison).
        patch: side of a patch in pixels.
        steps: how many patches to take away, by default all.

    Returns:
        (N, steps + 1) float32: before the first, after each. The mean over steps is the area
        under the curve: the lower, the more faithful the order.

    Raises:
        UsageError: ``patch`` does not divide the image.
    """
    count, _, height, width = images.shape
    if height % patch or width % patch:
        raise UsageError(f"patch {patch} does not divide images of {height} x {width} pixels")
    score = functional.avg_pool2d(heat[:, None].float(), patch).flatten(1)
    order = score.argsort(dim=1, descending=True, stable=True)
    across = width // patch
    blurred = _blur(images, sigma=patch / 2)
    shown = images.clone()
    was = model.training
    model.eval()
    rows = torch.arange(count)

    def probability() -> Tensor:
        logits = model(shown).float().cpu()
        found: Tensor = logits.softmax(dim=1)[rows, classes.cpu()]
        return found

    curve = [probability()]
    for place in order.T[:steps]:
        for i, at in enumerate(place.tolist()):
            top, left = patch * (at // across), patch * (at % across)
            shown[i, :, top : top + patch, left : left + patch] = blurred[
                i, :, top : top + patch, left : left + patch
            ]
        curve.append(probability())
    model.train(was)
    return torch.stack(curve, dim=1)


def _blur(images: Tensor, *, sigma: float) -> Tensor:
    """Gaussian blur, (N, C, H, W) -> the same."""
    from torchvision.transforms.v2.functional import gaussian_blur

    side = 2 * int(2 * sigma) + 1
    most = 2 * ((min(images.shape[-2:]) - 1) // 2) + 1  # reflection needs less than the image
    blurred: Tensor = gaussian_blur(images, [min(side, most)] * 2, [sigma, sigma])
    return blurred
