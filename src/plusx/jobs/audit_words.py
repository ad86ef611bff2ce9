"""What an audit's findings are called, how grave they are, and what to do about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Words:
    """How one kind of finding is said.

    Attributes:
        title: a heading.
        severity: ``error`` (files that cannot be used, figures that would be false), ``warning``
            (likely to cost accuracy or trust) or ``note``.
        unit: what is counted.
        text: the rest of the sentence that begins with the count; one form for one, one for many.
        remedy: what to do.
    """

    title: str
    severity: Severity
    unit: str
    text: tuple[str, str]
    remedy: str


WORDS = {
    "unreadable": Words(
        "Unreadable files", "error", "file",
        ("cannot be read", "cannot be read"),
        "Replace or remove them; training leaves them out."),
    "truncated": Words(
        "Truncated files", "error", "file",
        ("is truncated: its end is missing", "are truncated: their ends are missing"),
        "Copy or download them again; training leaves them out."),
    "copies_across_splits": Words(
        "Identical images in two splits", "error", "group",
        ("of identical images lies in more than one split", "of identical images lie in more than "
         "one split"),
        "Keep each on one side: figures on images that were trained on are false. "
        "plusx scan --fix writes such a list."),
    "near_copies_across_splits": Words(
        "Near duplicates in two splits", "warning", "group",
        ("of near duplicates lies in more than one split", "of near duplicates lie in more than "
         "one split"),
        "Look at them, and move those that show the same scene to one side."),
    "copies_across_labels": Words(
        "Identical images with different labels", "warning", "group",
        ("of identical images has more than one label", "of identical images have more than one "
         "label"),
        "Decide which label is right and remove the others; plusx scan --fix leaves them all out."),
    "near_copies_across_labels": Words(
        "Near duplicates with different labels", "warning", "group",
        ("of near duplicates has more than one label", "of near duplicates have more than one "
         "label"),
        "Look at them: one label is likely wrong."),
    "lookalikes_across_splits": Words(
        "Look-alikes in two splits", "warning", "group",
        ("of images that look alike lies in more than one split", "of images that look alike lie "
         "in more than one split"),
        "Look at them, and move those that show the same scene to one side, or give them a group."),
    "lookalikes_across_labels": Words(
        "Look-alikes with different labels", "warning", "group",
        ("of images that look alike has more than one label", "of images that look alike have "
         "more than one label"),
        "Look at them: one label may be wrong."),
    "label_errors": Words(
        "Likely label errors", "warning", "image",
        ("is likely labelled wrong", "are likely labelled wrong"),
        "Look at the first ones; correct the labels that are wrong. None is changed for you."),
    "shortcut": Words(
        "Shortcuts", "warning", "property",
        ("gives the class away without the subject", "give the class away without the subject"),
        "Make sure that it is not how the images were made (camera, crop, export) that differs "
        "between classes: test on images from elsewhere."),
    "uniform": Words(
        "Nearly uniform images", "warning", "image",
        ("is of nearly one colour", "are of nearly one colour"),
        "Look at them and remove what shows nothing."),
    "tiny": Words(
        "Tiny images", "warning", "image",
        ("is tiny beside the others", "are tiny beside the others"),
        "Remove thumbnails; find the originals."),
    "imbalance": Words(
        "Uneven classes", "warning", "class",
        ("is far smaller than the largest", "are far smaller than the largest"),
        "Add images of them; training weighs the classes to count alike, which helps only so far."),
    "few": Words(
        "Nearly empty classes", "warning", "class",
        ("has very few images", "have very few images"),
        "Add images or merge the class with another; its figures will say next to nothing."),
    "copies": Words(
        "Identical images", "note", "group",
        ("of identical images", "of identical images"),
        "They count several times, and are kept on one side of a split; plusx scan --fix keeps "
        "one of each."),
    "near_copies": Words(
        "Near duplicates", "note", "group",
        ("of near duplicates", "of near duplicates"),
        "They are kept on one side of a split that plusx makes."),
    "lookalikes": Words(
        "Look-alikes", "note", "group",
        ("of images that look alike", "of images that look alike"),
        "To a network they are nearly the same: look at them."),
    "outliers": Words(
        "Outliers", "note", "image",
        ("is unlike all others", "are unlike all others"),
        "Look at them: some do not belong here."),
    "huge": Words(
        "Huge images", "note", "image",
        ("is huge", "are huge"),
        "Smaller copies decode faster; the network sees a few hundred pixels."),
    "long": Words(
        "Extreme aspect ratios", "note", "image",
        ("is over three times as long as wide", "are over three times as long as wide"),
        "The network sees the middle square; crop them to the subject."),
}  # fmt: skip
"""Kind of finding -> its words, the gravest first."""


def many(count: int, unit: str) -> str:
    """``1 image``, ``3 images``, ``2 classes``, ``2 properties``."""
    if count == 1:
        return f"1 {unit}"
    plural = {"class": "classes", "property": "properties"}.get(unit, unit + "s")
    return f"{count:,} {plural}"


def sentence(kind: str, count: int) -> str:
    """``3 files cannot be read``."""
    words = WORDS[kind]
    return f"{many(count, words.unit)} {words.text[count != 1]}"
