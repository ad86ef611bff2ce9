"""What residual nets are measured against: VGG, and a simple CNN. No shortcut anywhere.

Both are the same straight line as a ``ResNet`` (stem, stages of blocks, norm, head), so freezing,
splitting and folding work on them unchanged.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional

from plusx.errors import SpecError, UsageError
from plusx.model.classifier import Classifier, Head
from plusx.model.family_spec import FamilySpec, check_whole, check_wholes

MOST_BLOCKS = 1000
"""Far above every known network, and still quick to refuse."""


@dataclass(frozen=True)
class VGGSpec(FamilySpec):
    """A VGG net (Simonyan & Zisserman 2014, arXiv 1409.1556, table 1) as data.

    Attributes:
        name: what the network is called; a label, without effect on what is built.
        depths: 3x3 convolutions per stage; a 2x2 max pool ends each.
        widths: their channels.
        norm: ``none``, as in the paper, or ``batch``: BatchNorm after every 3x3 convolution.
        hidden: outputs of each of the two layers between the stages and the head.
        dropout: after each of these two in training, section 3.1 of the paper; where they are
            frozen, nothing is dropped.
        in_channels: channels of the input.
        classes: outputs of the head.
        image_size: height and width, in pixels, that the network is meant for.

    Raises:
        SpecError: a field has a value that cannot be built.
    """

    family: ClassVar[str] = "vgg"

    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    norm: str = "none"
    hidden: int = 4096
    dropout: float = 0.5
    in_channels: int = 3
    classes: int = 1000
    image_size: int = 224

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", check_wholes("depths", self.depths))
        object.__setattr__(self, "widths", check_wholes("widths", self.widths))
        self.check_numbers("hidden", "in_channels", "classes", "image_size")
        if len(self.depths) != len(self.widths):
            raise SpecError(
                f"depths={list(self.depths)} and widths={list(self.widths)} differ in length; "
                "give one of each per stage"
            )
        if sum(self.depths) > MOST_BLOCKS:
            raise SpecError(f"depths={list(self.depths)} are more than {MOST_BLOCKS} convolutions")
        if self.norm not in ("none", "batch"):
            raise SpecError(f"norm={self.norm!r} is not one of none, batch")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise SpecError(f"dropout={self.dropout!r} must be at least 0 and below 1")
        _check_halved(self.image_size, len(self.widths))

    def replace(self, **changes: Any) -> VGGSpec:
        """A copy with some fields changed, checked again.

        ``depths`` may count the blocks of all stages, as one who has removed some does: the last
        number is then the two hidden layers'.
        """
        depths = changes.get("depths")
        if isinstance(depths, list | tuple) and len(depths) == self.stages and depths[-1] == 2:
            changes["depths"] = tuple(depths[:-1])
        return dataclasses.replace(self, **changes)

    @property
    def stages(self) -> int:
        """The convolution stages, and one of the two hidden layers."""
        return len(self.depths) + 1

    @property
    def blocks(self) -> int:
        """Convolutions and hidden layers."""
        return sum(self.depths) + 2

    @property
    def feature_channels(self) -> int:
        """Length of the feature vector, the C of ``features(x)``."""
        return self.hidden


@dataclass(frozen=True)
class CNNSpec(FamilySpec):
    """A simple CNN, as a course would write it, as data: 3x3 convolution, BatchNorm, ReLU, 2x2 max
    pool, again and again, then global average pooling and a linear layer.

    Attributes:
        name: what the network is called; a label, without effect on what is built.
        widths: channels of each convolution.
        in_channels: channels of the input.
        classes: outputs of the head.
        image_size: height and width, in pixels, that the network is meant for.

    Raises:
        SpecError: a field has a value that cannot be built.
    """

    family: ClassVar[str] = "cnn"

    widths: tuple[int, ...] = (32, 64, 128, 256)
    in_channels: int = 3
    classes: int = 10
    image_size: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", check_wholes("widths", self.widths))
        self.check_numbers("in_channels", "classes", "image_size")
        _check_halved(self.image_size, len(self.widths))

    @property
    def stages(self) -> int:
        """One a convolution."""
        return len(self.widths)

    @property
    def blocks(self) -> int:
        """One a convolution."""
        return len(self.widths)

    @property
    def feature_channels(self) -> int:
        """Length of the pooled feature vector, the C of ``features(x)``."""
        return self.widths[-1]


def _check_halved(image_size: int, times: int) -> None:
    if image_size < 2**times:
        raise SpecError(
            f"image_size={image_size} is too small: this network halves it {times} times; give "
            f"at least {2**times}"
        )


class ConvBlock(nn.Module):
    """3x3 convolution, norm if wanted, ReLU, and a 2x2 max pool if wanted.

    Attributes:
        droppable: whether what comes out has the shape of what came in.
    """

    folds: ClassVar[tuple[tuple[str, str], ...]] = (("conv", "norm"),)

    def __init__(
        self, in_channels: int, channels: int, *, bias: bool, norm: bool, pool: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=bias)
        self.norm: nn.Module = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.pool: nn.Module = nn.MaxPool2d(2) if pool else nn.Identity()
        self.act = nn.ReLU(inplace=True)
        self.droppable = in_channels == channels and not pool

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H, W), halved (rounded down) by a pool."""
        # Pooled before the activation: max and ReLU commute, and a quarter of the pixels is left.
        out: Tensor = self.act(self.pool(self.norm(self.conv(x))))
        return out


class HiddenBlock(nn.Module):
    """A hidden layer of VGG as a convolution: ReLU and dropout after it.

    The paper applies its fully connected layers as convolutions to images of other sizes (section
    3.2); so does timm, while torchvision pools every map to 7x7 first. The two are the same up to
    a map of 7x7, which is an image of 255 pixels. A smaller map is stretched to 7x7 as both do it
    (adaptive average pooling), so that an image of 32 pixels has an answer as well.
    """

    def __init__(self, in_channels: int, channels: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel)
        self.act = nn.ReLU(inplace=True)
        self.kernel, self.dropout = kernel, dropout

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> (N, channels, H', W'), H' = max(H, kernel) - kernel + 1."""
        height, width = x.shape[-2:]
        if height < self.kernel or width < self.kernel:
            size = (max(height, self.kernel), max(width, self.kernel))
            x = functional.adaptive_avg_pool2d(x, size)
        x = self.act(self.conv(x))
        # A frozen layer is in evaluation mode, and its answers must not change: nothing is dropped.
        return functional.dropout(x, self.dropout, self.conv.training)


class VGG(Classifier):
    """A VGG net as its spec describes it.

    The five stages of convolutions are followed by a sixth of the two hidden layers, so that
    ``features`` is the last hidden layer's answer and the last two blocks are the hidden layers.
    Convolutions have biases with BatchNorm, too, as torchvision and timm have them.

    Weights are drawn as in He et al. 2015 (arXiv 1502.01852): normal, fan out, and fan in for the
    hidden layers, biases zero. (The paper trained its deeper nets from its shallower ones, since
    it drew all with a standard deviation of 0.01.)
    """

    def __init__(self, spec: VGGSpec) -> None:
        super().__init__()
        self.spec: VGGSpec = spec
        self.stem = nn.Identity()
        self.stages = nn.ModuleList()
        channels, norm = spec.in_channels, spec.norm == "batch"
        for depth, width in zip(spec.depths, spec.widths, strict=True):
            blocks = []
            for position in range(depth):
                last = position == depth - 1
                blocks.append(ConvBlock(channels, width, bias=True, norm=norm, pool=last))
                channels = width
            self.stages.append(nn.Sequential(*blocks))
        hidden = [
            HiddenBlock(channels, spec.hidden, 7, spec.dropout),
            HiddenBlock(spec.hidden, spec.hidden, 1, spec.dropout),
        ]
        self.stages.append(nn.Sequential(*hidden))
        self.norm = nn.Identity()
        self.head = Head(spec.feature_channels, spec.classes)
        _initialise(self)


class CNN(Classifier):
    """A simple CNN as its spec describes it; weights are drawn as in He et al. 2015 (arXiv
    1502.01852): normal, fan out."""

    def __init__(self, spec: CNNSpec) -> None:
        super().__init__()
        self.spec: CNNSpec = spec
        self.stem = nn.Identity()
        self.stages = nn.ModuleList()
        channels = spec.in_channels
        for width in spec.widths:
            block = ConvBlock(channels, width, bias=False, norm=True, pool=True)
            self.stages.append(nn.Sequential(block))
            channels = width
        self.norm = nn.Identity()
        self.head = Head(spec.feature_channels, spec.classes)
        _initialise(self)


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, ConvBlock | HiddenBlock):
            fan: Literal["fan_out", "fan_in"]
            fan = "fan_out" if isinstance(module, ConvBlock) else "fan_in"
            nn.init.kaiming_normal_(module.conv.weight, mode=fan, nonlinearity="relu")
            if module.conv.bias is not None:
                nn.init.zeros_(module.conv.bias)


_DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}

BASELINES: dict[str, VGGSpec | CNNSpec] = {
    **{name: VGGSpec(name, depths) for name, depths in _DEPTHS.items()},
    **{f"{name}_bn": VGGSpec(f"{name}_bn", depths, norm="batch")
       for name, depths in _DEPTHS.items()},
    "cnn": CNNSpec("cnn"),
}  # fmt: skip
"""One plain table: name -> spec."""


def cnn(image_size: int) -> CNNSpec:
    """The simple CNN for images of that size: four stages, and one more for each doubling above 64
    pixels, so that the last map has 2 to 7 pixels a side (4 at 64, 7 at 224)."""
    stages = max(4, check_whole("image_size", image_size).bit_length() - 3)
    widths = tuple(min(32 * 2**stage, 256) for stage in range(stages))
    return CNNSpec("cnn", widths, image_size=image_size)


def baseline(name: str, *, image_size: int | None = None) -> VGGSpec | CNNSpec:
    """The spec of that name.

    Args:
        name: a key of ``BASELINES``.
        image_size: what it shall be meant for, in pixels.

    Raises:
        UsageError: there is no such baseline.
        SpecError: the image is too small for it.
    """
    if name not in BASELINES:
        near = get_close_matches(name, BASELINES, n=3) or list(BASELINES)
        raise UsageError(f"baseline {name!r} is unknown; did you mean {', '.join(near)}?")
    if image_size is None:
        return BASELINES[name]
    return cnn(image_size) if name == "cnn" else BASELINES[name].replace(image_size=image_size)
