"""Keras applications: ResNet50/101/152 and their V2, brought into plusx's terms.

* v1 strides the first 1x1; V2 the 3x3 of the last block of a stage.
* A convolution's bias before a norm is folded into the norm's mean; elsewhere (V2) it stays.
* Their norms divide by sqrt(variance + 1.001e-5); where plusx's add something else, the difference
  goes to the variance.
* v1 wants "caffe" pixels, BGR less a mean; plusx keeps RGB, so the first convolution's input
  channels are turned round. V2 wants RGB in -1..1.
* The zero padding before v1's pool is no more than the padding of plusx's: after a ReLU the
  largest of nothing is zero. V2 pools before any ReLU, so there the zeros count (its spec says so).

Sources: ``keras/src/applications/resnet.py``, ``resnet_v2.py`` and ``imagenet_utils.py`` of
https://github.com/keras-team/keras.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from plusx.data.preprocessing import Preprocessing
from plusx.errors import WeightsMismatch
from plusx.weights.foreign.h5 import KerasFile
from plusx.weights.foreign.table import Layout, to_internal

LAYOUT = Layout(
    name="keras",
    marks=(r"conv1_conv/",),
    prefixes=("",),
    table=(
        ("stem.conv", "conv1_conv"),
        ("stem.norm", "conv1_bn"),
        ("stages.{S}.{B}.shortcut.conv", "conv{S+2}_block{B+1}_0_conv"),
        ("stages.{S}.{B}.shortcut.norm", "conv{S+2}_block{B+1}_0_bn"),
        ("stages.{S}.{B}.residual.conv{K}", "conv{S+2}_block{B+1}_{K}_conv"),
        ("stages.{S}.{B}.residual.norm{K}", "conv{S+2}_block{B+1}_{K}_bn"),
        ("stages.{S}.{B}.preact.norm", "conv{S+2}_block{B+1}_preact_bn"),
        ("norm.norm", "post_bn"),
        ("head.fc", "predictions"),
    ),
    stride="1x1",
    what="layers of its own",
)

VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""A layer's variables there and here."""

EPSILON = 1.001e-5
"""Of every norm there; a whole model's file states it again."""

FIRST = "stem.conv.weight"

CAFFE_MEAN = (123.68, 116.779, 103.939)
"""RGB, of 0..255; ``imagenet_utils.preprocess_input(mode="caffe")``."""


def is_v2(file: KerasFile) -> bool:
    """Whether the net is pre-activation: only those end in a norm."""
    return any(key.startswith("post_bn/") for key in file.tensors)


def translate(file: KerasFile, origin: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The network's state under internal names, and the layers that are no part of it.

    Raises:
        WeightsMismatch: something in a block that plusx has no place for.
    """
    state: dict[str, Tensor] = {}
    others: set[str] = set()
    strange: list[str] = []
    head = _head(file)
    for key, value in file.tensors.items():
        layer, _, variable = key.rpartition("/")
        module = to_internal(layer, LAYOUT.table)
        if value.ndim < 4 and not layer.startswith("conv") and module in (None, "head.fc"):
            module = "head.fc" if layer == head else None
        leaf = VARIABLES.get(variable)
        if module is None and not layer.startswith("conv"):
            others.add(layer)
        elif module is None or leaf is None:
            strange.append(key)
        else:
            state[f"{module}.{leaf}"] = _turned(value)
    if strange or FIRST not in state:
        raise WeightsMismatch(
            f"{origin}: not a ResNet of Keras applications: "
            + (f"{len(strange)} unknown ({', '.join(strange[:5])})" if strange else "no conv1_conv")
            + "; plusx reads ResNet50, 101, 152 and their V2"
        )
    _fold_biases(state)
    if not is_v2(file) and state[FIRST].ndim == 4:
        state[FIRST] = state[FIRST].flip(1)
    return state, tuple(sorted(others))


def preprocessing(file: KerasFile) -> Preprocessing:
    """What the network saw: the image squeezed to its size (``load_img(target_size=...)``)."""
    size = _size(file)
    mean, std = tuple(value / 255 for value in CAFFE_MEAN), (1 / 255,) * 3
    if is_v2(file):
        mean, std = (0.5,) * 3, (0.5,) * 3
    return Preprocessing(size, size, "bilinear", mean=mean, std=std, mode="squish")


def _head(file: KerasFile) -> str | None:
    """The classifier: the one dense layer on the pooled features, whatever it is called."""
    kernels = {k: v for k, v in file.tensors.items() if k.endswith("/kernel")}
    features = max((v.shape[3] for v in kernels.values() if v.ndim == 4), default=0)
    dense = {
        key.rpartition("/")[0]
        for key, value in kernels.items()
        if value.ndim == 2 and value.shape[0] == features
    }
    return dense.pop() if len(dense) == 1 else None


def _turned(value: Tensor) -> Tensor:
    """(h, w, in, out) -> (out, in, h, w); (in, out) -> (out, in)."""
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1).contiguous()
    return value.T.contiguous() if value.ndim == 2 else value


def fold_epsilon(file: KerasFile, state: dict[str, Tensor], own: float) -> None:
    """Give each norm in ``state`` the variance with which it is the same under the epsilon
    ``own``."""
    stated = {
        f"{to_internal(name, LAYOUT.table)}.running_var": float(settings.get("epsilon", EPSILON))
        for name, (kind, settings) in file.layers.items()
        if kind == "BatchNormalization"
    }
    for name in [key for key in state if key.endswith(".running_var")]:
        difference = stated.get(name, EPSILON) - own
        state[name] = (state[name].double() + difference).float()


def _fold_biases(state: dict[str, Tensor]) -> None:
    for name in [key for key in state if key.endswith(".bias") and ".conv" in key]:
        norm = name.removesuffix(".bias").replace(".conv", ".norm")
        if f"{norm}.running_mean" in state:
            state[f"{norm}.running_mean"] = state[f"{norm}.running_mean"] - state.pop(name)


def _size(file: KerasFile) -> int:
    for kind, own in file.layers.values():
        shape: Any = own.get("batch_shape", own.get("batch_input_shape"))
        if kind == "InputLayer" and isinstance(shape, list) and len(shape) == 4:
            height, width = shape[1:3]
            if isinstance(height, int) and height == width and height > 0:
                return height
    return 224
