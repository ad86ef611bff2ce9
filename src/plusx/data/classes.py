"""From rows of (path, label, split, group) to a listing, with the checks every source shares."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from plusx.data.records import Listing, Sample
from plusx.errors import DataError

Row = tuple[str, str, str | None, str | None]
"""(path, label, split, group)"""

SPLIT_NAMES = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
"""What users call a split -> what plusx calls it."""


def quoted(names: Iterable[str], *, most: int = 10) -> str:
    """Names as ``'a', 'b'``, sorted, cut after ``most`` with a count of the rest."""
    ordered = sorted(names)
    text = ", ".join(repr(name) for name in ordered[:most]) or "none"
    return text if len(ordered) <= most else f"{text} and {len(ordered) - most} more"


def assemble(
    root: str, rows: Sequence[Row], *, where: str, training: bool, ignored: int = 0
) -> Listing:
    """Number the classes by name and check that the rows make a data set.

    Args:
        root: becomes ``Listing.root``.
        rows: one for each image.
        where: the folder or file that errors name.
        training: also require what training needs: two classes, and a train split holding
            every class where there are splits.
        ignored: becomes ``Listing.ignored``.

    Raises:
        DataError: no rows; class names that look alike; and with ``training`` one class only,
            no train split, or a class of another split that train lacks.
    """
    if not rows:
        raise DataError(f"{where}: holds no image")
    classes = tuple(sorted({label for _, label, _, _ in rows}))
    _refuse_lookalikes(classes, where)
    if training:
        _check_splits(rows, where)
        if len(classes) < 2:
            raise DataError(
                f"{where}: holds only one class, {classes[0]!r}; a classifier needs at least two"
            )
    number = {name: i for i, name in enumerate(classes)}
    samples = tuple(Sample(path, number[label], split, group) for path, label, split, group in rows)
    return Listing(root, classes, samples, ignored=ignored, source=where)


def _refuse_lookalikes(classes: Sequence[str], where: str) -> None:
    seen: dict[str, str] = {}
    for name in classes:
        key = unicodedata.normalize("NFC", name).casefold()
        if key in seen:
            raise DataError(
                f"{where}: classes {seen[key]!r} and {name!r} differ only in case or Unicode "
                "form; give them one name or clearly different ones"
            )
        seen[key] = name


def _check_splits(rows: Sequence[Row], where: str) -> None:
    labels: dict[str, set[str]] = {}
    for _, label, split, _ in rows:
        if split is not None:
            labels.setdefault(split, set()).add(label)
    if not labels:
        return
    if "train" not in labels:
        raise DataError(f"{where}: has {quoted(labels)} but no 'train' split; add one")
    for split, names in sorted(labels.items()):
        unknown = names - labels["train"]
        if unknown:
            raise DataError(
                f"{where}: split {split!r} has classes that 'train' lacks: {quoted(unknown)}; "
                f"'train' has {quoted(labels['train'])}"
            )
