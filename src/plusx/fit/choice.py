"""Which candidate ships: chosen on all of validation, and on each half of it to report honestly.

The candidates come one after the other (the probe, then every epoch). Kept are the best on all
images, which ships, and the best on either half, each to be judged on the other half: a figure of
the whole procedure on images that did not choose (``plusx.evaluate.selection``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from plusx.errors import DataError
from plusx.evaluate import Predictions
from plusx.evaluate.selection import figure_then_nll, halves

State = Mapping[str, Tensor]


@dataclass
class Winner:
    """The best candidate so far on some of the validation images.

    Attributes:
        rows: the images it is chosen on.
        name: of the candidate.
        score: its score there; larger is better.
        state: its parameters and buffers.
        epoch: of the candidate; 0 is the starting point.
    """

    rows: npt.NDArray[np.int64]
    name: str = ""
    score: tuple[float, ...] = ()
    state: State | None = None
    epoch: int = 0


class Choice:
    """Keeps the best of the candidates offered.

    Args:
        validation: the images that choose; its logits are not looked at.
        seed: of the halves.
    """

    def __init__(self, validation: Predictions, *, seed: int) -> None:
        self._validation = validation
        everything = np.arange(len(validation), dtype=np.int64)
        self.winners = [Winner(everything)]
        self.why_not_halves = ""
        try:
            side = halves(validation, seed=seed)
        except DataError as error:
            self.why_not_halves = str(error)
        else:
            self.winners += [Winner(np.flatnonzero(side == s)) for s in (0, 1)]

    @property
    def best(self) -> Winner:
        """The winner on all of validation."""
        return self.winners[0]

    @property
    def last_gain(self) -> int:
        """The latest epoch that any winner comes from."""
        return max(winner.epoch for winner in self.winners)

    def offer(
        self, name: str, epoch: int, logits: npt.NDArray[np.float32], state: Callable[[], State]
    ) -> Predictions:
        """Compare a candidate with the winners so far; ties go to the earlier one.

        The starting point (the probe) gives way only to a better figure: to more right answers
        (task multi: to a higher mean average precision). Among epochs an equal one is decided by
        likelihood, but the probe is less sure by design, and on a handful of
        images that alone would nearly always take its place.

        Args:
            name: what to call it.
            epoch: after which it stands.
            logits: (n, K) on the validation images.
            state: gives a copy of its parameters and buffers; called if it wins anywhere.

        Returns:
            The candidate's predictions.
        """
        predictions = replace(self._validation, logits=logits)
        copy: State | None = None
        for winner in self.winners:
            score = figure_then_nll(predictions.take(winner.rows))
            against_start = winner.epoch == 0 < epoch
            if against_start and score[0] <= winner.score[0]:
                continue
            if not winner.score or score > winner.score:
                copy = copy if copy is not None else state()
                winner.name, winner.score, winner.epoch = name, score, epoch
                winner.state = copy
        return predictions

    def state_dict(self) -> dict[str, Any]:
        """The winners as plain data and tensors, and a digest of the images that chose them."""
        keys = ("name", "score", "state", "epoch")
        winners = [{key: getattr(winner, key) for key in keys} for winner in self.winners]
        return {"images": self._digest(), "winners": winners}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``state_dict``.

        Raises:
            DataError: the winners were chosen on other images.
        """
        if state["images"] != self._digest():
            raise DataError(
                "the validation images are not those that the checkpoint's epochs were judged on; "
                "train anew, without --resume"
            )
        for winner, values in zip(self.winners, state["winners"], strict=True):
            for key, value in values.items():
                setattr(winner, key, value)

    def _digest(self) -> str:
        digest = hashlib.sha256(self._validation.targets.tobytes())
        for path in self._validation.paths:
            digest.update(path.encode("utf-8", "surrogatepass") + b"\0")
        return digest.hexdigest()
