"""Weights: found, checked, loaded, saved. Nothing heavy is imported before it is used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plusx.weights.artifact import (
        Artifact,
        load_artifact,
        save_artifact,
        write_card,
        write_decision,
    )
    from plusx.weights.families import build, spec_from_dict, title
    from plusx.weights.family_config import architecture
    from plusx.weights.foreign.reading import Reading
    from plusx.weights.network import Network, create, create_network, resolve_spec
    from plusx.weights.sources import AUTO, BUNDLED, auto_weights

__all__ = [
    "AUTO",
    "BUNDLED",
    "Artifact",
    "Network",
    "Reading",
    "architecture",
    "auto_weights",
    "build",
    "create",
    "create_network",
    "load_artifact",
    "resolve_spec",
    "save_artifact",
    "spec_from_dict",
    "title",
    "write_card",
    "write_decision",
]

_HOME = {
    "AUTO": "sources",
    "BUNDLED": "sources",
    "Artifact": "artifact",
    "load_artifact": "artifact",
    "save_artifact": "artifact",
    "write_card": "artifact",
    "write_decision": "artifact",
    "Reading": "foreign.reading",
    "architecture": "family_config",
    "auto_weights": "sources",
    "build": "families",
    "Network": "network",
    "create": "network",
    "create_network": "network",
    "resolve_spec": "network",
    "spec_from_dict": "families",
    "title": "families",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
