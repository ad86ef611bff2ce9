"""Any weights file in plusx's own terms: which tongue, which parts, which network, which pixels.

What a file declares is taken; what its tongue leaves open is asked for, never guessed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn

from plusx.data.preprocessing import Preprocessing
from plusx.errors import UsageError
from plusx.model import ResNetSpec
from plusx.model.classifier import Spec
from plusx.model.spec_check import StrideSite
from plusx.weights.artifact import Described
from plusx.weights.families import HEAD
from plusx.weights.files import KERAS_SUFFIXES, check_file, check_values, read_state, read_tensors
from plusx.weights.foreign import keras
from plusx.weights.foreign.h5 import read_keras
from plusx.weights.foreign.shapes import first_name, spec_of
from plusx.weights.foreign.table import Layout, Pixels
from plusx.weights.foreign.tongues import NAMES, PLAIN, find_layout, sort
from plusx.weights.load import first_weight, internal_state
from plusx.weights.names import strip_prefixes
from plusx.weights.recognise import nearest_state
from plusx.weights.sources import Source

CAFFE_MEAN = (123.675, 116.28, 103.53)
"""RGB, of 0..255, as detectron2 and OpenMMLab have it for nets of MSRA; their std is 1."""


@dataclass(frozen=True)
class Reading:
    """How to read weights that do not say it all.

    Attributes:
        layout: the tongue, one of ``NAMES``; ``auto`` recognises it by its names.
        stride: which convolution of a bottleneck strides, ``1x1`` (v1) or ``3x3`` (v1.5).
        pixels: what the network saw: ``imagenet`` (RGB, ImageNet's mean and std) or ``caffe-bgr``
            (BGR, a mean taken off, not scaled).

    Raises:
        UsageError: another value.
    """

    layout: str = "auto"
    stride: StrideSite | None = None
    pixels: Pixels | None = None

    def __post_init__(self) -> None:
        legal = {"layout": NAMES, "stride": get_args(StrideSite), "pixels": get_args(Pixels)}
        for field, values in legal.items():
            value = getattr(self, field)
            if value is not None and value not in values:
                raise UsageError(f"--{field} {value!r} is not one of {', '.join(values)}")


AS_IT_SAYS = Reading()
"""Nothing stated: what the file declares, and what its names tell."""


@dataclass(frozen=True)
class Read:
    """``state`` under internal names; ``source`` with what is now known of it; ``has_head``:
    whether the file holds a classifier."""

    state: dict[str, Tensor]
    source: Source
    notes: tuple[str, ...]
    has_head: bool

    def fills(self, spec: Spec) -> bool:
        """Whether every parameter of that network comes from the file, the head's included."""
        head = self.state.get(HEAD[0])
        wanted = (spec.classes, spec.feature_channels) if isinstance(spec, ResNetSpec) else ()
        return head is not None and tuple(head.shape) == wanted and HEAD[1] in self.state

    def complete(self, model: nn.Module) -> dict[str, Tensor]:
        """The state, with the model's own fresh head where the file holds none."""
        if self.has_head:
            return self.state
        own = model.state_dict()
        return self.state | {name: own[name] for name in HEAD if name in own}


def read_weights(source: Source, asked: Spec | None, reading: Reading = AS_IT_SAYS) -> Read:
    """Read the file of ``source`` in whatever tongue it is.

    Networks besides ResNet have no tables here: their files are read as they are.

    Args:
        source: the file, and what a config beside it says.
        asked: the network that the user named, if any.
        reading: what the user says of the file.

    Raises:
        WeightsError: the file cannot be read, or holds NaN.
        WeightsMismatch: parts that its tongue does not know, or no network that plusx builds.
        UsageError: its stride or pixels must be stated, or are stated against what it declares.
    """
    known = asked if source.described is None else source.described.spec
    if not isinstance(asked, ResNetSpec | None) or not isinstance(known, ResNetSpec | None):
        state, notes = read_state(source.path)
        return Read(state, source, notes, has_head=True)
    if source.path.suffix in KERAS_SUFFIXES:
        return _keras(source, asked, reading)
    state, notes = read_tensors(source.path)
    keys = strip_prefixes(state)
    layout = find_layout(list(keys.values()), reading.layout, source.origin)
    if layout is None:
        check_values(state, source.path)
        named = nearest_state(state) if known is None else internal_state(state, known)
        named, source = _stated(source, asked, known, named, reading)
        return _read(named, source, notes)
    named, dropped = sort(state, keys, layout, source.origin)
    if layout.pixels is None:
        reading = _declared_pixels(state, keys, reading, source)
    check_values(named, source.path)
    if dropped:
        notes += (
            f"{source.path.name}: read as {layout.name}; left out {dropped} entries that are not "
            f"the backbone ({layout.what})",
        )
    if source.described is None:
        described, named, said = _describe(source, asked, named, layout, reading)
        source = dataclasses.replace(source, described=described)
        notes += said
    elif known is not None and reading.stride not in (None, known.bottleneck_stride):
        raise _against(source, known, reading)
    return _read(named, source, notes)


def _describe(
    source: Source,
    asked: ResNetSpec | None,
    state: dict[str, Tensor],
    layout: Layout,
    reading: Reading,
) -> tuple[Described, dict[str, Tensor], tuple[str, ...]]:
    """The network and its pixels where no config says them."""
    stride = _stride(source, asked, state, layout, reading)
    spec = spec_of(state, stride, source.origin, asked)
    pixels = layout.pixels or reading.pixels
    if reading.pixels not in (None, pixels):
        raise UsageError(
            f"--pixels {reading.pixels}: {layout.name} weights are made for {pixels}; leave it out"
        )
    if pixels is None:
        raise UsageError(
            f"{source.origin}: {layout.name} weights exist for {' and '.join(get_args(Pixels))} "
            "pixels, and the file does not say; state it by: plusx import ... --pixels "
            f"{'|'.join(get_args(Pixels))} (its config has PIXEL_MEAN, or to_rgb)"
        )
    preprocessing = Preprocessing.for_size(spec.image_size, spec.in_channels)
    if pixels == "caffe-bgr":
        mean = tuple(value / 255 for value in CAFFE_MEAN)
        preprocessing = dataclasses.replace(preprocessing, mean=mean, std=(1 / 255,) * 3)
        # The net keeps RGB: turning its first convolution round is the same as turning the image.
        first = first_name(state)
        state = state | {first: state[first].flip(1)}
    kind = "" if spec.block == "basic" else f", {_kind(spec)}"
    note = (
        f"{source.path.name}: {layout.name} weights of {spec.name}{kind}; short side "
        f"{preprocessing.resize}, crop {preprocessing.size}, {pixels} pixels"
    )
    return Described(spec, preprocessing, None), state, (note,)


def _stride(
    source: Source,
    asked: ResNetSpec | None,
    state: Mapping[str, Tensor],
    layout: Layout,
    reading: Reading,
) -> StrideSite:
    """Which convolution of a bottleneck strides: declared, or asked for."""
    bottleneck = any(name.endswith("residual.conv3.weight") for name in state)
    said = reading.stride or (asked.bottleneck_stride if asked is not None else None)
    if asked is not None and reading.stride not in (None, asked.bottleneck_stride):
        raise _against(source, asked, reading)
    declared = layout.stride
    if declared is not None and said not in (None, declared) and bottleneck:
        raise UsageError(
            f"{source.origin}: {layout.name} weights stride the {declared}, not the {said}; leave "
            "--stride and --model out"
        )
    if declared is None and said is None and bottleneck:
        raise UsageError(
            f"{source.origin}: {layout.name} weights exist as v1 (stride on the 1x1) and v1.5 (on "
            "the 3x3) under the same names and shapes, and the file does not say; state it by "
            "--stride 1x1|3x3, or by --model (resnet50_v1, resnet50)"
        )
    return declared or said or "3x3"


def _stated(
    source: Source,
    asked: ResNetSpec | None,
    spec: ResNetSpec | None,
    state: dict[str, Tensor],
    reading: Reading,
) -> tuple[dict[str, Tensor], Source]:
    """Names that cannot tell v1 from v1.5, with what the user says of them; ``spec`` is the
    source's own, or the one asked for."""
    if reading.stride is None and reading.pixels is None:
        return state, source
    if spec is not None and reading.stride not in (None, spec.bottleneck_stride):
        raise _against(source, spec, reading)
    if source.described is not None:
        if reading.pixels is not None:
            raise UsageError(f"--pixels: {source.origin} states its preprocessing; leave it out")
        return state, source
    layout = Layout(PLAIN, (), (), pixels=reading.pixels or "imagenet")
    described, state, said = _describe(source, asked, state, layout, reading)
    return state, dataclasses.replace(source, described=described, notes=source.notes + said)


def _keras(source: Source, asked: ResNetSpec | None, reading: Reading) -> Read:
    if reading.layout not in ("auto", keras.LAYOUT.name):
        raise UsageError(f"--layout {reading.layout}: {source.path.name} is a Keras file")
    if reading.pixels is not None:
        raise UsageError("--pixels: Keras weights state their pixels; leave it out")
    check_file(source.path)
    file = read_keras(source.path)
    state, others = keras.translate(file, source.origin)
    check_values(state, source.path)
    stride: StrideSite = "3x3" if keras.is_v2(file) else "1x1"
    if reading.stride not in (None, stride):
        raise UsageError(
            f"--stride {reading.stride}: {source.path.name} strides the {stride}, as all Keras "
            "ResNets of its kind; leave it out"
        )
    stands = asked is not None and asked.bottleneck_stride == stride
    spec = spec_of(state, stride, source.origin, asked if stands else None)
    keras.fold_epsilon(file, state, spec.norm_eps)
    preprocessing = keras.preprocessing(file)
    spec = spec.replace(image_size=preprocessing.size)
    notes = [
        f"{source.path.name}: Keras weights of {spec.name}; images are squeezed to "
        f"{preprocessing.size} x {preprocessing.size} (bilinear), then as Keras' preprocess_input"
    ]
    if others:
        notes.append(f"{source.path.name}: left out {len(others)} layers: {', '.join(others[:5])}")
    described = Described(spec, preprocessing, None)
    source = dataclasses.replace(source, described=described)
    return _read(state, source, tuple(notes))


def _read(state: dict[str, Tensor], source: Source, notes: tuple[str, ...]) -> Read:
    """With a note where the file holds no classifier."""
    if HEAD[0] in state or first_weight(state) is None:
        return Read(state, source, notes, has_head=True)
    note = f"{source.path.name}: holds no head; a fresh, untrained one is put in its place"
    return Read(state, source, (*notes, note), has_head=False)


def _declared_pixels(
    state: Mapping[str, Tensor], keys: Mapping[str, str], reading: Reading, source: Source
) -> Reading:
    """detectron2's older checkpoints keep the mean that they take off: in BGR it rises."""
    mean = next((state[old] for old, key in keys.items() if key == "pixel_mean"), None)
    if mean is None or mean.numel() != 3:
        return reading
    known: dict[Pixels, tuple[float, ...]] = {
        "caffe-bgr": CAFFE_MEAN[::-1],
        "imagenet": CAFFE_MEAN,
    }
    for pixels, values in known.items():
        if torch.allclose(mean.flatten().float(), torch.tensor(values), atol=0.5):
            if reading.pixels not in (None, pixels):
                raise UsageError(
                    f"--pixels {reading.pixels}: {source.origin} states {pixels} by its pixel_mean"
                )
            return dataclasses.replace(reading, pixels=pixels)
    return reading


def _kind(spec: ResNetSpec) -> str:
    return "v1 (stride on the 1x1)" if spec.bottleneck_stride == "1x1" else "v1.5"


def _against(source: Source, spec: ResNetSpec, reading: Reading) -> UsageError:
    return UsageError(
        f"--stride {reading.stride}: {spec.name} strides the {spec.bottleneck_stride}; leave "
        f"--stride out for {source.origin}, or ask for another --model"
    )
