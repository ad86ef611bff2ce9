"""Images: listed, split, decoded, preprocessed, augmented, loaded, checked.

Nothing is imported before it is used: reading facts, and its worker processes, need no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plusx.data.augmentation import Augmentation, view_rng
    from plusx.data.decode import MAX_PIXELS, read_image
    from plusx.data.facts import FactTable, ImageFacts, gather_facts
    from plusx.data.folder import read_folder
    from plusx.data.listing import align, drop, read_listing, unlabelled
    from plusx.data.loader import epoch_order, load_batches, plain_reader, read_batch
    from plusx.data.manifest import read_manifest
    from plusx.data.preprocessing import Preprocessing
    from plusx.data.records import SPLITS, BadImage, Batch, Listing, Sample, Task, groups_of
    from plusx.data.split import folds, split_listing
    from plusx.data.strong import AnyAugmentation, StrongAugmentation

__all__ = [
    "MAX_PIXELS",
    "SPLITS",
    "AnyAugmentation",
    "Augmentation",
    "BadImage",
    "Batch",
    "FactTable",
    "ImageFacts",
    "Listing",
    "Preprocessing",
    "Sample",
    "StrongAugmentation",
    "Task",
    "align",
    "drop",
    "epoch_order",
    "folds",
    "gather_facts",
    "groups_of",
    "load_batches",
    "plain_reader",
    "read_batch",
    "read_folder",
    "read_image",
    "read_listing",
    "read_manifest",
    "split_listing",
    "unlabelled",
    "view_rng",
]

_HOME = {
    "MAX_PIXELS": "decode",
    "SPLITS": "records",
    "AnyAugmentation": "strong",
    "Augmentation": "augmentation",
    "BadImage": "records",
    "Batch": "records",
    "FactTable": "facts",
    "ImageFacts": "facts",
    "Listing": "records",
    "Preprocessing": "preprocessing",
    "Sample": "records",
    "StrongAugmentation": "strong",
    "Task": "records",
    "align": "listing",
    "drop": "listing",
    "epoch_order": "loader",
    "folds": "split",
    "gather_facts": "facts",
    "groups_of": "records",
    "load_batches": "loader",
    "read_batch": "loader",
    "plain_reader": "loader",
    "read_folder": "folder",
    "read_image": "decode",
    "read_listing": "listing",
    "read_manifest": "manifest",
    "split_listing": "split",
    "unlabelled": "listing",
    "view_rng": "augmentation",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
