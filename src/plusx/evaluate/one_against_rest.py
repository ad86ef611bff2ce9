"""Every class against the rest: areas, and rates at promised others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from plusx.errors import DataError, UsageError
from plusx.evaluate.areas import WHY_NONE, Area, Bools, areas, mean_area
from plusx.evaluate.discrimination import Trade, sensitivity_at, specificity_at
from plusx.evaluate.intervals import Figure, Floats, Ints

if TYPE_CHECKING:
    from plusx.evaluate.metrics import ClassFigures

Rates = tuple[float, ...]


@dataclass(frozen=True)
class Held:
    """Rates to hold, at which the other one is told for each class against the rest.

    Attributes:
        specificities: tell the sensitivity at each. Where neither this nor ``sensitivities`` is
            given: 0.95 and 0.99 of both for two classes, none for more.
        sensitivities: tell the specificity at each.

    Raises:
        UsageError: one is not between 0 and 1.
    """

    specificities: Rates | None = None
    sensitivities: Rates | None = None

    def __post_init__(self) -> None:
        for name in ("specificities", "sensitivities"):
            for value in getattr(self, name) or ():
                if not 0 < value < 1:
                    raise UsageError(
                        f"{name} {value!r} must lie between 0 and 1, for instance 0.95"
                    )

    def of(self, classes: int) -> tuple[Rates, Rates]:
        """Specificities and sensitivities for so many classes."""
        if self.specificities is None and self.sensitivities is None:
            usual = (0.95, 0.99) if classes == 2 else ()
            return usual, usual
        return self.specificities or (), self.sensitivities or ()


@dataclass(frozen=True)
class Told:
    """What is known of K classes against the rest.

    Attributes:
        auroc, auprc: a figure a class, None where it has too few images.
        macro_auroc, macro_auprc: their means over the classes that have one.
        trades: of each class.
        undefined: why something is None or left out.
    """

    auroc: tuple[Figure | None, ...]
    auprc: tuple[Figure | None, ...]
    macro_auroc: Figure | None
    macro_auprc: Figure | None
    trades: tuple[tuple[Trade, ...], ...]
    undefined: dict[str, str]

    def added(self, per_class: tuple[ClassFigures, ...]) -> tuple[ClassFigures, ...]:
        """The figures of each class with these among them."""
        return tuple(
            replace(one, auroc=roc, average_precision=average, trades=trades)
            for one, roc, average, trades in zip(
                per_class, self.auroc, self.auprc, self.trades, strict=True
            )
        )


def one_against_rest(
    scores: Floats, truth: Bools, groups: Ints | None, rates: tuple[Rates, Rates]
) -> Told:
    """Areas of each class, and its rates at promised ones.

    Args:
        scores: (N, K) log-odds of each class.
        truth: (N, K) whether the image is of the class.
        groups: (N,) number of each image's group.
        rates: specificities and sensitivities to hold.
    """
    found: list[tuple[Area, Area] | None] = []
    trades: list[tuple[Trade, ...]] = []
    undefined: dict[str, str] = {}
    for score, positive in zip(scores.T, truth.T, strict=True):
        own = np.ascontiguousarray(score)
        found.append(areas(own, positive, groups))
        trades.append(_trades(own, positive, groups, rates, undefined))
        if found[-1] is None and positive.any():
            undefined["per_class.auroc"] = undefined["per_class.auprc"] = WHY_NONE
    there = [one for one in found if one is not None]
    macro = [mean_area([one[i] for one in there]) for i in (0, 1)]
    for name, figure in zip(("macro_auroc", "macro_auprc"), macro, strict=True):
        if figure is None:
            undefined[name] = WHY_NONE
    return Told(
        auroc=tuple(None if one is None else one[0].figure for one in found),
        auprc=tuple(None if one is None else one[1].figure for one in found),
        macro_auroc=macro[0],
        macro_auprc=macro[1],
        trades=tuple(trades),
        undefined=undefined,
    )


def _trades(
    score: Floats,
    positive: Bools,
    groups: Ints | None,
    rates: tuple[Rates, Rates],
    undefined: dict[str, str],
) -> tuple[Trade, ...]:
    """Those that there are images for, thresholds as probabilities; why the others are left out
    goes into ``undefined``."""
    made = []
    if not positive.any():  # an absent class; see Evaluation.absent
        return ()
    names = ("specificity", "sensitivity")
    for tell, held, name in zip((sensitivity_at, specificity_at), rates, names, strict=True):
        for rate in held:
            try:
                trade = tell(score, positive, rate, groups)
            except DataError as error:
                undefined[f"per_class.at {name} {rate:g}"] = str(error)
            else:
                made.append(replace(trade, threshold=_probability(trade.threshold)))
    return tuple(made)


def _probability(odds: npt.ArrayLike) -> float:
    from scipy.special import expit

    return float(expit(odds))
