"""From rows of (path, label, split, group) to a listing, with the checks every source shares."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from plusx.data.records import Listing, Sample, Task
from plusx.errors import DataError

Label = str | tuple[str, ...]
"""A class name (task single), or the names of all an image's classes (task multi)."""

Row = tuple[str, Label, str | None, str | None]
"""(path, label, split, group)"""

SEPARATOR = ";"
"""Between the labels of one image; no class of task multi has it in its name."""

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
    root: str,
    rows: Sequence[Row],
    *,
    where: str,
    training: bool,
    task: Task = "single",
    names: Iterable[str] = (),
    ignored: int = 0,
    unlabelled: int = 0,
) -> Listing:
    """Number the classes by name and check that the rows make a data set.

    Args:
        root: becomes ``Listing.root``.
        rows: one for each labelled image.
        where: the folder or file that errors name.
        training: also require what training needs: two classes, and a train split holding
            every class where there are splits.
        task: the kind of the rows' labels.
        names: classes to have besides those of the rows.
        ignored: becomes ``Listing.ignored``.
        unlabelled: becomes ``Listing.unlabelled``.

    Raises:
        DataError: no rows; class names that look alike; and with ``training`` one class only,
            no train split, or a class of another split that train lacks.
    """
    if not rows:
        raise DataError(f"{where}: holds no {'labelled ' if unlabelled else ''}image")
    classes = tuple(sorted(set(names).union(*(names_of(label) for label in _kinds(rows)))))
    _refuse_lookalikes(classes, where)
    if training:
        _check_splits(rows, where)
        if len(classes) < 2:
            said = f"only one class, {classes[0]!r}" if classes else "no class"
            raise DataError(f"{where}: holds {said}; a classifier needs at least two")
    number = {name: i for i, name in enumerate(classes)}
    targets: dict[Label, int | tuple[int, ...]] = {
        label: number[label]
        if isinstance(label, str)
        else tuple(sorted(number[name] for name in label))
        for label in _kinds(rows)
    }
    samples = tuple(
        Sample(path, targets[label], split, group) for path, label, split, group in rows
    )
    return Listing(
        root, classes, samples, task=task, ignored=ignored, unlabelled=unlabelled, source=where
    )


def names_of(label: Label) -> tuple[str, ...]:
    """The class names that a label holds."""
    return (label,) if isinstance(label, str) else label


def _kinds(rows: Sequence[Row]) -> set[Label]:
    return {label for _, label, _, _ in rows}


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
            labels.setdefault(split, set()).update(names_of(label))
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
