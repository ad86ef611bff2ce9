"""What a decision shall promise, as a user asks for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from plusx.errors import UsageError


@dataclass(frozen=True)
class Wish:
    """Which parts a decision shall have, and what they shall promise.

    Attributes:
        sets: coverage of the sets of classes; None for no sets.
        per_class: promise it within every class.
        unknown: share of images of known classes that may be called unknown; None for no score.
        precision: of the images that are answered; None to answer always.
        coverage: share of the images to answer, the surest; not with ``precision``.
        sensitivity: a class, and the share of its images to find.
    """

    sets: float | None = 0.9
    per_class: bool = False
    unknown: float | None = 0.05
    precision: float | None = None
    coverage: float | None = None
    sensitivity: tuple[str, float] | None = None

    @classmethod
    def parse(cls, text: str | None) -> Wish:
        """From ``precision=0.95,sets=0.9``: any of ``sets``, ``sets-per-class``, ``unknown``
        (these three may be ``none``), ``precision``, ``coverage`` and ``sensitivity:CLASS``.

        Raises:
            UsageError: a part is not understood.
        """
        wish = cls()
        for part in [] if text is None else text.split(","):
            key, _, value = (word.strip() for word in part.rpartition("="))
            key, _, name = key.partition(":")
            may_lack = key in ("sets", "sets-per-class", "unknown")
            share = None if may_lack and value == "none" else _share(part, value)
            if key == "sensitivity" and name and share is not None:
                wish = replace(wish, sensitivity=(name, share))
            elif name or not (may_lack or key in ("precision", "coverage")):
                raise UsageError(
                    f"--decide {part!r}: is none of precision=, coverage=, sensitivity:CLASS=, "
                    "sets=, sets-per-class=, unknown= with a share, such as precision=0.95"
                )
            elif key.startswith("sets"):
                wish = replace(wish, sets=share, per_class=key != "sets")
            else:
                wish = replace(wish, **{key: share})  # type: ignore[arg-type]
        if wish.precision is not None and wish.coverage is not None:
            raise UsageError(
                f"--decide {text!r}: precision and coverage set one threshold; give one"
            )
        return wish

    def check(self, classes: Sequence[str]) -> None:
        """Whether the class that it names exists.

        Raises:
            UsageError: it does not.
        """
        if self.sensitivity is not None and self.sensitivity[0] not in classes:
            shown = ", ".join(classes[:10]) + (" ..." if len(classes) > 10 else "")
            raise UsageError(
                f"--decide sensitivity: no class {self.sensitivity[0]!r}; there are: {shown}"
            )


def _share(part: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise UsageError(f"--decide {part!r}: {text!r} must be a share between 0 and 1, like 0.95")
    return share
