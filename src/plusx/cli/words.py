"""Figures as text for a person."""

from __future__ import annotations

from collections.abc import Mapping


def figure(value: Mapping[str, float] | None) -> str:
    """``94.8% (95% interval 91.2-97.0)``, or a dash where the figure is undefined."""
    if value is None:
        return "-"
    low, high = 100 * value["low"], 100 * value["high"]
    return f"{100 * value['value']:.1f}% (95% interval {low:.1f}-{high:.1f})"
