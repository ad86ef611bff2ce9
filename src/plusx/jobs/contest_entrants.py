"""Who takes part in a comparison: names become networks that all see the same pixels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch

from plusx.data import Preprocessing
from plusx.errors import PlusxError, UsageError
from plusx.jobs.contest_options import ContestOptions
from plusx.model import VARIANTS, ResNetSpec, variant
from plusx.model.baselines import BASELINES
from plusx.model.classifier import Spec
from plusx.weights import Network, create_network
from plusx.weights.timm_net import PREFIX

KNOWN = {
    "pretrained": "starts from the weights: a linear head on its features first, then fine-tuned",
    "scratch": "the same network from random weights",
    "plain": "the same network without its shortcuts, from random weights",
    "cnn": "a simple CNN from random weights",
}
"""Contestant -> what it is; any other network goes by its name, ``NAME[=WEIGHTS]``."""


@dataclass(frozen=True)
class Entrant:
    """One contestant.

    Attributes:
        name: as asked for.
        what: in words.
        spec: of its network, for the data's classes.
        weights: as ``--weights``; ``none`` for random ones.
        origin: of the weights, by content where there are some.
        preprocessing: what it sees of an image.
        parameters: of the network.
    """

    name: str
    what: str
    spec: Spec
    weights: str
    origin: str
    preprocessing: Preprocessing
    parameters: int

    @property
    def slug(self) -> str:
        """Its name as that of a folder."""
        return re.sub(r"[^\w.-]+", "-", self.name)

    @property
    def scratch(self) -> bool:
        """Whether it starts from random weights."""
        return self.weights == "none"

    def build(self, seed: int) -> Network:
        """Its network; random weights are drawn from ``seed``."""
        size = self.preprocessing.size
        if self.scratch:
            found = create_network(self.spec, weights="none", image_size=size, seed=seed)
        else:
            found = create_network(
                self.spec, weights=self.weights, classes=self.spec.classes,
                in_channels=self.spec.in_channels, image_size=size, seed=seed,
            )  # fmt: skip
        return replace(found, preprocessing=self.preprocessing)


def names_of(text: str) -> list[str]:
    """``a,b,c`` -> the names, each known to be one of a contestant.

    Raises:
        UsageError: fewer than two, one twice, or an unknown one (near names are told).
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        plain = name.partition("=")[0]
        if plain in KNOWN and "=" in name:
            raise UsageError(f"--with {name}: {plain} takes no =WEIGHTS; give --weights instead")
        if plain in KNOWN or _is_network(plain):
            continue
        near = get_close_matches(plain, [*KNOWN, *BASELINES, *VARIANTS], n=3, cutoff=0.5)
        meant = f"did you mean {', '.join(near)}? " if near else ""
        raise UsageError(
            f"--with {name}: is no contestant; {meant}known are {', '.join(KNOWN)}, "
            "any network of plusx models, and timm:NAME"
        )
    slugs = [re.sub(r"[^\w.-]+", "-", name) for name in names]
    if twice := [name for name, slug in zip(names, slugs, strict=True) if slugs.count(slug) > 1]:
        raise UsageError(f"--with {text}: names {twice[0]} twice")
    if len(names) < 2:
        raise UsageError(f"--with {text!r}: a comparison needs at least two contestants")
    return sorted(names, key=lambda name: name != "pretrained")  # the others are held against it


def enter(options: ContestOptions, classes: int) -> list[Entrant]:
    """The contestants, each built once to see that it takes the images.

    Raises:
        PlusxError: a name, weights, or a network that does not take the others' images.
    """
    names = names_of(options.contestants)
    if "pretrained" in names and options.weights == "none":
        raise UsageError("--weights none: pretrained needs weights; or leave it out of --with")
    # Without a contestant that needs them, weights are not fetched to learn the network's name.
    unneeded = "pretrained" not in names and options.weights == "auto"
    base = create_network(
        options.model, weights="none" if unneeded else options.weights, classes=classes,
        image_size=options.image_size, seed=options.seed,
    )  # fmt: skip
    return [_entrant(name, base, options) for name in names]


def _entrant(name: str, base: Network, options: ContestOptions) -> Entrant:
    if name == "pretrained":
        network, weights = base, options.weights
    else:
        asked, _, weights = name.partition("=")
        weights = weights or "none"
        spec = base.model.spec
        try:
            network = create_network(
                _model(asked, spec), weights=weights, classes=spec.classes,
                in_channels=spec.in_channels, image_size=base.preprocessing.size, seed=options.seed,
            )  # fmt: skip
        except PlusxError as error:
            raise UsageError(f"--with {name}: {error}") from error
        if weights == "none":  # the same pixels for all
            network = replace(network, preprocessing=base.preprocessing)
    _check_fits(name, network, base.preprocessing)
    model = network.model
    what = KNOWN.get(name, f"from {weights}" if weights != "none" else "from random weights")
    return Entrant(
        name=name,
        what=f"{model.spec.name}: {what}",
        spec=model.spec,
        weights=weights,
        origin=f"{network.origin} {network.sha256 or ''}".strip(),
        preprocessing=network.preprocessing,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def _model(asked: str, spec: Spec) -> str | Spec:
    """What a name stands for beside a pretrained net of that spec."""
    if asked == "scratch":
        return spec
    if asked != "plain":
        return asked
    if not isinstance(spec, ResNetSpec):
        raise UsageError(f"{spec.name} is no residual net: it has no shortcuts to take away")
    return spec.plain_twin()


def _is_network(name: str) -> bool:
    if name.startswith(PREFIX) or name in BASELINES or name.endswith(".json"):
        return True
    try:
        variant(name)
    except UsageError:
        return False
    return True


def _check_fits(name: str, network: Network, wanted: Preprocessing) -> None:
    seen = network.preprocessing
    if seen.size != wanted.size or seen.channels != wanted.channels:
        raise UsageError(
            f"--with {name}: takes {seen.size} pixels and {seen.channels} channels, the others "
            f"{wanted.size} and {wanted.channels}; give --image-size {seen.size}, or leave it out"
        )
    images = torch.zeros(1, seen.channels, seen.size, seen.size)
    try:
        with torch.inference_mode():
            network.model.eval()(images)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"--with {name}: {network.model.spec.name} does not take images of {seen.size} pixels; "
            "give another --image-size, or leave it out"
        ) from error
