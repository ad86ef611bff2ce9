"""Which nets there are to choose from: those whose weights are at hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from plusx.data import Preprocessing
from plusx.errors import HubUnreachable, PlusxError, UsageError
from plusx.jobs.choose_options import ChooseOptions
from plusx.model import variant
from plusx.model.baselines import BASELINES
from plusx.model.classifier import Classifier
from plusx.model.describe import count
from plusx.weights import Network, auto_weights, create_network, resolve_spec
from plusx.weights.artifact import CONFIG, find_artifact
from plusx.weights.files import SUFFIXES
from plusx.weights.hub import cached_folder
from plusx.weights.sources import BUNDLED

LADDER = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
"""From shallow to deep."""

OTHERS = ("resnext50_32x4d", BUNDLED, "timm:mobilenetv3_large_100", "timm:efficientnet_b0",
          "timm:convnext_tiny")  # fmt: skip
"""Beside the ladder: more than one way to spend the same time."""


@dataclass(frozen=True)
class Candidate:
    """A net and where its weights are.

    Attributes:
        name: to be shown; no two have the same.
        model: as for ``create_network``; None where the weights say.
        weights: likewise.
    """

    name: str
    model: str | None
    weights: str

    def load(self, classes: int, seed: int) -> Network:
        """The network with a fresh head.

        Raises:
            PlusxError: the weights cannot be used.
        """
        return create_network(self.model, weights=self.weights, classes=classes, seed=seed)


@dataclass(frozen=True)
class Net:
    """A candidate that could be loaded.

    Attributes:
        candidate: where it came from.
        variant: what kind of network it is.
        spec: all of it, as JSON's plain values, but for the number of classes.
        origin: of its weights.
        sha256: of its weights.
        preprocessing: what it sees of an image.
        params: parameters, with a head for the data's classes.
        macs: multiply-adds for one image.
        file_mib: of a model folder's weights in float32.
    """

    candidate: Candidate
    variant: str
    spec: dict[str, object]
    origin: str
    sha256: str | None
    preprocessing: Preprocessing
    params: int
    macs: int
    file_mib: float

    @property
    def name(self) -> str:
        """To be shown."""
        return self.candidate.name

    @classmethod
    def of(cls, candidate: Candidate, network: Network) -> Net:
        """What is known of a loaded network."""
        model: Classifier = network.model
        params, macs = count(model)
        size = sum(value.numel() * value.element_size() for value in model.state_dict().values())
        return cls(candidate, model.spec.name, model.spec.replace(classes=2).to_dict(),
                   network.origin, network.sha256, network.preprocessing, params, macs,
                   size / 2**20)  # fmt: skip


def find_candidates(options: ChooseOptions) -> tuple[list[Candidate], dict[str, str]]:
    """The nets to load, and why others that were asked for, or are usual, are left out.

    Raises:
        UsageError: a name is no network, or the folder of weights is none.
    """
    beside = [] if options.weights_dir is None else in_folder(Path(options.weights_dir))
    names = [name.strip() for name in (options.models or "").split(",") if name.strip()]
    found: list[Candidate] = [] if names else list(beside)
    skipped: dict[str, str] = {}
    for name in names or (*LADDER, *OTHERS):
        plain, _, weights = name.partition("=")
        if weights:
            found.append(Candidate(plain, plain if _is_network(plain) else None, weights))
        elif own := [one for one in beside if plain in (one.name, one.model)]:
            found += [] if not names else own
        else:
            try:
                found.append(_at_hand(name, download=options.download))
            except PlusxError as error:
                if names and not isinstance(error, HubUnreachable):
                    raise UsageError(f"--models {name}: {error}") from error
                skipped[name] = str(error)
    return _named_apart(found), skipped


def in_folder(folder: Path) -> list[Candidate]:
    """The nets of a folder: weights files and model folders. A file's network is what ``NAME.json``
    beside it describes (a SPEC.json), else the variant whose name its own begins with, else what
    the file itself says.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"--weights-dir {folder}: is no folder")
    found = []
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            if find_artifact(path) is not None or (path / CONFIG).is_file():
                found.append(Candidate(path.name, None, str(path)))
        elif path.suffix.lower() in SUFFIXES:
            spec = path.with_suffix(".json")
            model = str(spec) if spec.is_file() else _variant_of(path.stem)
            found.append(Candidate(path.stem, model, str(path)))
    once = [one.model for one in found]
    return [
        replace(one, name=one.model)
        if one.model is not None and one.name.startswith(one.model) and once.count(one.model) == 1
        else one
        for one in found
    ]


def load_all(
    candidates: list[Candidate],
    classes: int,
    seed: int,
    use: Callable[[Net, Network], None],
) -> dict[str, str]:
    """Load one after the other and hand each to ``use``; gives why some could not be."""
    failed = {}
    for candidate in candidates:
        try:
            network = candidate.load(classes, seed)
            use(Net.of(candidate, network), network)
        except PlusxError as error:
            failed[candidate.name] = str(error)
    return failed


def _is_network(name: str) -> bool:
    try:
        resolve_spec(name)
    except UsageError:
        return False
    return True


def _variant_of(stem: str) -> str | None:
    """The longest name that ``stem`` begins with: ``resnet50`` of ``resnet50-0676ba61``, not of
    ``resnet50d_1``."""
    ends = [len(stem), *(found.start() for found in re.finditer("[-_.]", stem))]
    for end in sorted(ends, reverse=True):
        if stem[:end] in BASELINES:
            return stem[:end]
        with suppress(UsageError):
            return variant(stem[:end]).name
    return None


def _at_hand(name: str, *, download: bool) -> Candidate:
    """The net with the weights that ``--weights auto`` takes.

    Raises:
        HubUnreachable: they are on the hub alone.
        PlusxError: there is no such network, or nobody knows weights for it.
    """
    weights, _ = auto_weights(resolve_spec(name))
    if weights == "bundled" or download:
        return Candidate(name, name, weights)
    folder = cached_folder(weights)
    if folder is None:
        raise HubUnreachable("not in the hub's cache; --download fetches it, or put a file into "
                             "--weights-dir")  # fmt: skip
    return Candidate(name, name, str(folder))


def _named_apart(found: list[Candidate]) -> list[Candidate]:
    """No two of one name: what comes later is numbered."""
    seen: dict[str, int] = {}
    apart = []
    for one in found:
        seen[one.name] = seen.get(one.name, 0) + 1
        number = seen[one.name]
        apart.append(one if number == 1 else replace(one, name=f"{one.name} ({number})"))
    return apart
