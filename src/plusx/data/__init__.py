"""Images: listed, split, decoded, preprocessed, augmented, loaded, checked."""

from __future__ import annotations

from plusx.data.augmentation import Augmentation, view_rng
from plusx.data.decode import MAX_PIXELS, read_image
from plusx.data.folder import read_folder
from plusx.data.listing import align, drop, read_listing, unlabelled
from plusx.data.loader import epoch_order, load_batches, plain_reader
from plusx.data.manifest import read_manifest
from plusx.data.preprocessing import Preprocessing
from plusx.data.records import SPLITS, BadImage, Batch, Listing, Sample, Task, groups_of
from plusx.data.scan import find_unreadable
from plusx.data.split import folds, split_listing

__all__ = [
    "MAX_PIXELS",
    "SPLITS",
    "Augmentation",
    "BadImage",
    "Batch",
    "Listing",
    "Preprocessing",
    "Sample",
    "Task",
    "align",
    "drop",
    "epoch_order",
    "find_unreadable",
    "folds",
    "groups_of",
    "load_batches",
    "plain_reader",
    "read_folder",
    "read_image",
    "read_listing",
    "read_manifest",
    "split_listing",
    "unlabelled",
    "view_rng",
]
