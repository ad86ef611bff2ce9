"""``config.toml`` of a run, and what a resumed run takes from it and holds it against."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from plusx.data.classes import quoted
from plusx.errors import ArtifactError, DataError, UsageError
from plusx.fit.distributed import Processes
from plusx.jobs.origin import versions
from plusx.jobs.run import read_config, write_config
from plusx.jobs.setup import Setup
from plusx.jobs.talk import Talk

Tables = dict[str, dict[str, Any]]

_DECIDES = {
    "versions": ("python", "torch", "numpy", "platform"),
    "hardware": ("device", "processor", "torch_threads", "processes"),
}
"""What the last bits of a result depend on."""


@dataclass(frozen=True)
class Began:
    """A run that began earlier.

    Attributes:
        folder: of the run.
        config: its ``config.toml``.
        force: go on though the data or the version of plusx changed.
    """

    folder: Path
    config: Tables
    force: bool = False

    @staticmethod
    def read(run: str | os.PathLike[str]) -> Began:
        """Open a run folder.

        Raises:
            UsageError: the folder is no training run.
            ArtifactError: its config.toml is damaged.
        """
        folder = Path(run)
        if not (folder / "config.toml").is_file() or not os.fspath(run):
            raise UsageError(
                f"--resume {os.fspath(run)!r}: is no run (it has no config.toml); give the folder "
                "that plusx train made"
            )
        config = read_config(folder / "config.toml")
        if "asked" not in config:
            raise UsageError(f"--resume {run}: is no training run (its config.toml says not how)")
        needed = {"asked": ("data", "device"), "hardware": ("precision",), "network": ("weights",)}
        if lacking := [f"{table}.{key}" for table, keys in needed.items() for key in keys
                       if key not in config.get(table, {})]:  # fmt: skip
            raise ArtifactError(f"{folder}/config.toml: is damaged: lacks {', '.join(lacking)}")
        return Began(folder, config)

    @property
    def asked(self) -> dict[str, Any]:
        """The options, with what was resolved when it began in place of what was asked for."""
        config = self.config
        asked = config["asked"] | {
            "out": os.fspath(self.folder),
            "precision": config["hardware"]["precision"],
        }
        for name, path in config.get("paths", {}).items():
            if Path(path).exists():
                asked[name] = path
        if config["network"]["weights"].startswith("hub:"):
            asked["weights"] = config["network"]["weights"].removeprefix("hub:")
        views = config.get("cache", {}).get("views")
        # A probe alone has no views and keeps its features.
        if views is not None and config["network"].get("trainable_blocks") != 0:
            asked |= {"views": views} if views else {"cache_gib": 0.0}
        return asked

    def is_finished(self) -> bool:
        """Whether all of it is there: the page is written last."""
        return all((self.folder / name).is_file() for name in ("metrics.json", "report.html"))

    @contextmanager
    def threads(self, processes: Processes) -> Iterator[None]:
        """As many of torch's threads as when it began: how sums are split decides on their last
        bits."""
        now = torch.get_num_threads()
        then = self.config["hardware"].get("torch_threads", now)
        if processes.several or self.config["hardware"].get("processes", 1) > 1:
            then = now
        torch.set_num_threads(then)
        try:
            yield
        finally:
            torch.set_num_threads(now)

    def check(self, setup: Setup, talk: Talk) -> None:
        """Hold what is there now against what it began with; what differs is said.

        Raises:
            DataError: a class is gone or new.
            UsageError: the weights differ; or without ``force`` the data or the version of plusx.
        """
        now: Tables = setup.tables() | {"versions": versions()}
        self._check_classes(setup)
        if self.config["network"].get("sha256") != setup.network.sha256:
            raise UsageError(
                f"--resume {self.folder}: {setup.options.weights} are not the weights that the run "
                "began with"
            )
        then = self.config.get("data", {}).get("fingerprint")
        if then is not None and then != now["data"]["fingerprint"]:
            self._complain(f"the data changed since it began ({self._counts(now)})", talk)
        version = self.config.get("versions", {}).get("plusx")
        if version != now["versions"]["plusx"]:
            self._complain(
                f"it began with plusx {version}, and this is {now['versions']['plusx']}", talk
            )
        differing = [
            f"{name} {self.config[table][name]} (now {now[table][name]})"
            for table, names in _DECIDES.items()
            for name in names
            if self.config.get(table, {}).get(name, now[table][name]) != now[table][name]
        ]
        if differing:
            talk.note(
                f"it began with {', '.join(differing)}: the weights may differ in their last bits "
                "from those of a run that never stopped"
            )

    def _check_classes(self, setup: Setup) -> None:
        then = self.config.get("data", {}).get("classes")
        now = list(setup.listing.classes)
        if then is None or list(then) == now:
            return
        gone, new = [c for c in then if c not in now], [c for c in now if c not in then]
        parts = [f"{quoted(names)} {word}" for names, word in ((gone, "gone"), (new, "new"))
                 if names]  # fmt: skip
        raise DataError(
            f"--resume {self.folder}: the classes are not those that it began with: "
            f"{', '.join(parts) or 'they have another order'}; put the data back as it was, or "
            "train anew"
        )

    def _counts(self, now: Tables) -> str:
        keys = [f"{split}_images" for split in ("train", "val", "test")]
        before, after = ([table.get(key) for key in keys] for table in
                         (self.config["data"], now["data"]))  # fmt: skip
        if before == after:
            return "as many images, but other content, names or labels"
        said = (f"{split} {a} then, {b} now" for split, a, b in
                zip(("train", "val", "test"), before, after, strict=True) if a != b)  # fmt: skip
        return ", ".join(said)

    def _complain(self, what: str, talk: Talk) -> None:
        if not self.force:
            raise UsageError(
                f"--resume {self.folder}: {what}: its end would not be that of a run that never "
                "stopped; put it back as it was, or give --force"
            )
        talk.note(f"{what}; gone on with all the same (--force)")


class Config:
    """``config.toml``: every effective value, as it stood when the run began.

    Args:
        folder: of the run.
        setup: of the run.
        began: what stood there, where it is resumed; it stays, but for a change that was forced.
    """

    def __init__(self, folder: Path, setup: Setup, began: Began | None) -> None:
        self._path = folder / "config.toml"
        self._began = began is not None
        self.tables: dict[str, Mapping[str, Any]] = {
            **setup.tables(),
            "versions": versions(),
        }
        if began is not None and not began.force:
            self.tables = dict(began.config)
        elif began is not None:
            self.tables |= {key: began.config[key] for key in ("asked", "paths", "cache")
                            if key in began.config}  # fmt: skip

    def write(self, **tables: Mapping[str, Any]) -> None:
        """Write it, with these tables added or replaced.

        Raises:
            UsageError: a resumed run has room for another number of cached views than it began
                with.
        """
        then = self.tables.get("cache", {}).get("views")
        if "cache" in tables and then is not None and tables["cache"]["views"] != then:
            raise UsageError(
                f"--resume {self._path.parent}: the run began with {then} cached views an image, "
                f"and the disk has room for {tables['cache']['views']} now; make room"
            )
        self.tables |= tables
        write_config(self._path, self.tables)
