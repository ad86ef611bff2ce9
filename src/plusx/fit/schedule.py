"""How the learning rate goes from the first step to the last."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from plusx.errors import UsageError

ScheduleName = Literal["cosine", "step", "poly", "constant"]


@dataclass(frozen=True)
class Schedule:
    """The share of the peak learning rate at every step; a rise comes first, then the fall.

    Attributes:
        name: ``cosine`` to zero (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts),
            ``step`` (times ``gamma`` at each milestone: He et al. 2015, section 4.2), ``poly``
            (one minus progress, to the ``power``: Liu et al. 2015, arXiv 1506.04579; 1 is a line)
            or ``constant``.
        warmup: fraction of all steps in which it rises linearly (Goyal et al. 2017, arXiv
            1706.02677, section 2.2); 0 rises for none.
        milestones: of ``step``, as fractions of all steps.
        gamma: of ``step``.
        power: of ``poly``.

    Raises:
        UsageError: a value out of range.
    """

    name: ScheduleName = "cosine"
    warmup: float = 0.1
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    power: float = 1.0

    def __post_init__(self) -> None:
        rising = list(self.milestones) == sorted(set(self.milestones))
        checks = {
            "schedule": (self.name, self.name in get_args(ScheduleName),
                         "cosine, step, poly or constant"),
            "warmup": (self.warmup, 0 <= self.warmup < 1, "at least 0 and below 1"),
            "milestones": (self.milestones, rising and all(0 < m < 1 for m in self.milestones),
                           "fractions of the training that rise between 0 and 1"),
            "gamma": (self.gamma, 0 < self.gamma <= 1, "above 0 and at most 1"),
            "power": (self.power, 0 < self.power < math.inf, "above 0"),
        }  # fmt: skip
        for flag, (value, fine, wanted) in checks.items():
            if not fine:
                raise UsageError(f"--{flag} {value!r} must be {wanted}")

    def factor(self, step: float, steps: int) -> float:
        """Share of the peak at ``step`` (from 0) of ``steps``."""
        rising = max(1, round(self.warmup * steps)) if self.warmup else 0
        if step < rising:
            return (step + 1) / rising
        done = (step - rising) / max(1, steps - rising)
        if self.name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        if self.name == "poly":
            return float(max(0.0, 1 - done) ** self.power)
        if self.name == "step":  # milestones count from the first step, as their source has them
            return self.gamma ** sum(step >= round(m * steps) for m in self.milestones)
        return 1.0


def warmup_fraction(text: str | float, *, epochs: int, steps: int) -> float:
    """What ``--warmup`` says as a fraction of all steps: ``0.1``, ``5 epochs`` or ``400 steps``.

    Args:
        text: as asked for.
        epochs: of the training.
        steps: of an epoch.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    number, _, unit = str(text).strip().partition(" ")
    whole: Sequence[tuple[tuple[str, ...], int]] = (
        (("",), 1),
        (("epoch", "epochs"), epochs),
        (("step", "steps"), epochs * steps),
    )
    try:
        value = float(number)
        total = next(count for units, count in whole if unit.strip() in units)
    except (ValueError, StopIteration):
        raise UsageError(
            f"--warmup {text!r} must be a fraction of the training such as 0.1, '5 epochs' or "
            "'400 steps'"
        ) from None
    return value / total
