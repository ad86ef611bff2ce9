"""Any network of timm's, by ``timm:NAME``: its body as one block, with a head of ours.

timm is the extra ``timm``; it is imported here alone, and only builds: files and the hub are read
by plusx's own code. Source: https://github.com/huggingface/pytorch-image-models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

from plusx.errors import MissingExtra, SpecError, UsageError
from plusx.model.classifier import Classifier, Head
from plusx.model.family_spec import FamilySpec

PREFIX = "timm:"
BODY = "stages.0.0.net."
"""What stands before timm's own names inside."""

# Arguments of timm.create_model that reach for files or the hub, or that the spec states itself.
_RESERVED = ("cache_dir", "checkpoint_path", "device", "dtype", "exportable", "features_only",
             "in_chans", "no_jit", "num_classes", "scriptable")  # fmt: skip


@dataclass(frozen=True)
class TimmSpec(FamilySpec):
    """A network of timm's as data; ``timm_spec`` finds the fields that timm knows.

    Attributes:
        name: ``timm:`` and timm's name, perhaps with a tag: ``timm:resnet10t.c3_in1k``.
        architecture: timm's name without a tag; what is built.
        feature_channels: inputs of the classifier.
        classifier: the name of the last linear layer inside timm's network.
        first_conv: the name of the first convolution; empty where it is not one.
        fixed_size: whether only images of ``image_size`` fit.
        model_args: what timm's ``create_model`` is told besides classes and channels.
        in_channels: channels of the input.
        classes: outputs of the head.
        image_size: height and width, in pixels, that the network is meant for.

    Raises:
        SpecError: a field has a value that cannot be built.
    """

    family: ClassVar[str] = "timm"

    architecture: str
    feature_channels: int
    classifier: str
    first_conv: str = ""
    fixed_size: bool = False
    model_args: dict[str, Any] = field(default_factory=dict)
    in_channels: int = 3
    classes: int = 1000
    image_size: int = 224

    stages: ClassVar[int] = 1
    blocks: ClassVar[int] = 1

    def __post_init__(self) -> None:
        self.check_numbers("feature_channels", "in_channels", "classes", "image_size")
        if not isinstance(self.architecture, str) or not re.fullmatch(r"\w+", self.architecture):
            raise SpecError(f"architecture={self.architecture!r} is not a name of timm's")
        for name in ("classifier", "first_conv"):
            if not isinstance(getattr(self, name), str):
                raise SpecError(f"{name}={getattr(self, name)!r} must be the name of a module")
        if type(self.fixed_size) is not bool:
            raise SpecError(f"fixed_size={self.fixed_size!r} must be true or false")
        if not isinstance(self.model_args, dict):
            raise SpecError(f"model_args={self.model_args!r} must be an object")
        for name in self.model_args:
            if name in _RESERVED or str(name).startswith("pretrained"):
                raise SpecError(f"model_args may not hold {name}; leave it out")
        try:
            json.dumps(self.model_args)
        except (TypeError, ValueError) as error:
            raise SpecError(f"model_args={self.model_args!r} is not plain JSON: {error}") from error


class TimmBody(nn.Module):
    """timm's network without its classifier."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> features as maps of one pixel (N, feature_channels, 1, 1)."""
        features: Tensor = self.net(x)
        return features[:, :, None, None]


class TimmNet(Classifier):
    """A network of timm's: one stage of one block, which is its whole body, and our head.

    Weights are drawn as timm draws them.

    Raises:
        MissingExtra: timm is not installed.
        UsageError: timm cannot build it so.
        SpecError: the spec is not that of the network that timm builds.
    """

    def __init__(self, spec: TimmSpec) -> None:
        super().__init__()
        self.spec: TimmSpec = spec
        self.stem = nn.Identity()
        net = create_body(spec.architecture, spec.classes, spec.in_channels, spec.model_args)
        linear = take_classifier(net, spec.classifier, spec.name)
        if linear.in_features != spec.feature_channels:
            raise SpecError(
                f"{spec.name}: feature_channels={spec.feature_channels}, but timm's has "
                f"{linear.in_features}"
            )
        self.stages = nn.ModuleList([nn.Sequential(TimmBody(net))])
        self.norm = nn.Identity()
        self.head = Head(spec.feature_channels, spec.classes)
        self.head.fc = linear


def disk_name(spec: TimmSpec, name: str) -> str:
    """An internal name in timm's tongue."""
    if name.startswith("head.fc."):
        return f"{spec.classifier}.{name.removeprefix('head.fc.')}"
    return name.removeprefix(BODY)


def internal_name(spec: TimmSpec, key: str) -> str:
    """The inverse of ``disk_name``."""
    if key.startswith((BODY, "head.fc.")) and not key.startswith(f"{spec.classifier}."):
        return key
    module, _, leaf = key.rpartition(".")
    return f"head.fc.{leaf}" if module == spec.classifier else BODY + key


def import_timm() -> Any:
    """The package.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingExtra("--model timm:NAME", "timm") from error
    return timm


def create_body(
    architecture: str, classes: int, channels: int, args: Mapping[str, Any]
) -> nn.Module:
    """timm's network with random weights, its classifier included.

    Raises:
        MissingExtra: timm is not installed.
        UsageError: timm cannot build it so.
    """
    timm = import_timm()
    if not timm.is_model(architecture):
        raise UsageError(f"timm {timm.__version__} has no model {architecture!r}; update timm")
    try:
        net = timm.create_model(
            architecture, pretrained=False, num_classes=classes, in_chans=channels, **args
        )
    except Exception as error:  # what a network makes of its arguments is its own affair
        told = "".join(f", {key}={value}" for key, value in args.items())
        raise UsageError(
            f"{PREFIX}{architecture}: timm cannot build it with {classes} classes, {channels} "
            f"channels{told}: {first_line(error)}"
        ) from error
    assert isinstance(net, nn.Module)
    return net


def take_classifier(net: nn.Module, path: str, name: str) -> nn.Linear:
    """The last linear layer, whose place an identity takes.

    Raises:
        SpecError: there is no module of that name.
        UsageError: it is another layer.
    """
    parent, _, leaf = path.rpartition(".")
    try:
        holder = net.get_submodule(parent)
        linear: nn.Module = getattr(holder, leaf)
    except AttributeError as error:
        raise SpecError(f"{name}: timm's network has no module {path!r}") from error
    # timm has a subclass of the same name that differs under torch.jit alone.
    plain = type(linear).__name__ == "Linear" and linear.bias is not None
    if not (isinstance(linear, nn.Linear) and plain):
        raise UsageError(
            f"{name}: its classifier is not one linear layer with a bias ({type(linear).__name__}),"
            " which plusx needs; choose another network"
        )
    setattr(holder, leaf, nn.Identity())
    return linear


def first_line(error: Exception) -> str:
    """Of its text, or its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
