"""plusx: residual networks for image recognition. ``import plusx`` loads no torch."""

from __future__ import annotations

from plusx._version import __version__

__all__ = ["__version__"]
