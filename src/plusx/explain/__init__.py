"""Where a network looked: heat maps over an image, and how far they can be believed."""

from __future__ import annotations

from plusx.explain.faithfulness import deletion_curves
from plusx.explain.gradcam import grad_cam, sharpest_stage
from plusx.explain.overlay import on_image, overlay, smaller

__all__ = ["deletion_curves", "grad_cam", "on_image", "overlay", "sharpest_stage", "smaller"]
