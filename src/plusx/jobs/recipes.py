"""Recipes as data: TOML files in the package, each with its source and what it is expected to
reach, and TOML files of a user."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from plusx.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NOT_FOR_FILES = ("data", "out", "overwrite", "recipe", "config")
"""What a recipe or a file may not set."""


@dataclass(frozen=True)
class NamedRecipe:
    """One of the package's recipes.

    Attributes:
        name: for ``--recipe``.
        title: what it is, in a few words.
        source: paper or code that it follows.
        expected: the figure that the source states, or what is known.
        departs: where it differs from its source.
        command: that trains by it.
        train: options, by name.
        text: the file.
    """

    name: str
    title: str
    source: str
    expected: str
    departs: str
    command: str
    train: Mapping[str, Any]
    text: str


def recipe_names() -> list[str]:
    """Of the package's recipes, sorted."""
    found = (item.name for item in files("plusx").joinpath("recipes").iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def read_recipe(name: str) -> NamedRecipe:
    """One of the package's recipes.

    Raises:
        UsageError: there is none of that name.
    """
    known = recipe_names()
    if name not in known:
        raise UsageError(
            f"--recipe {name!r} is not one of {', '.join(known)}; a file of yours is --config FILE"
        )
    text = files("plusx").joinpath("recipes").joinpath(f"{name}.toml").read_text(encoding="utf-8")
    tables = tomllib.loads(text)
    return NamedRecipe(name=name, text=text, train=tables["train"], **tables["about"])


def read_config_options(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Options of a user's TOML file, at its top or in a table ``[train]``.

    Raises:
        UsageError: it cannot be read, or sets what a file cannot set; unknown names are told when
            the options are made.
    """
    try:
        tables: dict[str, Any] = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"--config {path}: is no TOML file: {error}") from error
    tables.pop("about", None)  # as the package's recipes have it
    options = dict(tables.pop("train", {})) | tables
    for name in (*NOT_FOR_FILES, *(key for key, value in options.items()
                                   if isinstance(value, dict))):  # fmt: skip
        if name in options and name != "recipe":
            raise UsageError(f"--config {path}: {name} cannot be set in a file; leave it out")
    return {name.replace("-", "_"): value for name, value in options.items()}


def with_recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options given one by one, over those of the file ``config``, over those of ``recipe``.

    Args:
        given: by name; what was not given is absent.

    Raises:
        UsageError: no such recipe or file.
    """
    config = {} if given.get("config") is None else read_config_options(given["config"])
    named = given.get("recipe", config.get("recipe"))
    recipe = {} if named is None else dict(read_recipe(named).train)
    for one in (config, dict(given)):  # epochs and iterations both say how long: the last one does
        if "epochs" in one and "iterations" not in one:
            recipe.pop("iterations", None)
            if one is not config:
                config.pop("iterations", None)
        if "iterations" in one and "epochs" not in one:
            recipe.pop("epochs", None)
            if one is not config:
                config.pop("epochs", None)
    return recipe | config | dict(given)


def parse_setting(text: str) -> tuple[str, Any]:
    """``NAME=VALUE`` of the command line; the value is read as in a TOML file, else as text.

    Raises:
        UsageError: there is no ``=``.
    """
    name, found, value = text.partition("=")
    if not found or not name.strip():
        raise UsageError(f"--set {text!r} must be NAME=VALUE, such as nesterov=false")
    try:
        read = tomllib.loads(f"x = {value}")["x"]
    except ValueError:
        read = value.strip()
    return name.strip().replace("-", "_"), read
