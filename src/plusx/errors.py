"""What can go wrong, as one tree.

    PlusxError                  base of all; the command line prints its text and exits with 2
    ├── UsageError              an argument has a value that cannot work
    │   └── MissingExtra        an optional dependency is not installed; names the extra
    ├── SpecError               a network description that cannot be built
    ├── DataError               a folder or list of images that cannot be used
    │   └── UnreadableImage     one image that cannot be decoded (path and reason)
    ├── WeightsError            a weights file or hub entry that cannot be used
    │   ├── HubUnreachable      the hub cannot be reached and nothing is cached
    │   └── WeightsMismatch     weights that do not fit the network; lists what is off
    ├── ArtifactError           a model folder or run that cannot be read or written
    ├── Diverged                a training whose loss or answers are no longer finite
    └── ProcessLost             another process of the same training ended

Every text names the argument or file, says what is wrong and what to do.
"""

from __future__ import annotations


class PlusxError(Exception):
    """Base of every error that plusx raises on purpose.

    Attributes:
        said_elsewhere: whether another process of the same training tells the user already; None
            where processes don't know of each other.
    """

    said_elsewhere: bool | None = None


class UsageError(PlusxError, ValueError):
    """An argument has a value that cannot work."""


class MissingExtra(UsageError):
    """An optional dependency is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an extra; install it: pip install 'plusx[{extra}]'")
        self.extra = extra


class SpecError(PlusxError, ValueError):
    """A network description that cannot be built."""


class DataError(PlusxError):
    """A folder or list of images that cannot be used."""


class UnreadableImage(DataError):
    """One image that cannot be decoded."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        return type(self), (self.path, self.reason)


class WeightsError(PlusxError):
    """A weights file or hub entry that cannot be used."""


class HubUnreachable(WeightsError):
    """The hub cannot be reached and nothing is cached."""


class WeightsMismatch(WeightsError):
    """Weights that do not fit the network."""


class ArtifactError(PlusxError):
    """A model folder or run that cannot be read or written."""


class Diverged(PlusxError):
    """A training whose loss or answers are no longer finite."""


class ProcessLost(PlusxError):
    """Another process of the same training ended."""
