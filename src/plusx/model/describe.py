"""A network as a table: shapes, parameters, multiply-adds, receptive field, stage by stage.

The network is run once on torch's meta device, where tensors have shapes but no memory. Multiply-
adds are those of convolutions and matrix products (torch's own ``flop_counter``, halved); norms,
activations and pools are not counted, as in torchvision's figures.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from plusx.model.classifier import Classifier
from plusx.model.reach import Tracer


@dataclass(frozen=True)
class Block:
    """One block, as it is drawn.

    Attributes:
        layers: its convolutions and what else is not plain, in order (``3x3 64 /2``).
        bypass: what is added to them: ``x``, ``1x1 conv(x)``, ... or empty where nothing is.
    """

    layers: tuple[str, ...]
    bypass: str


@dataclass(frozen=True)
class Row:
    """One part of the straight line.

    Attributes:
        name: ``stem``, ``stage 1``, ..., ``norm``, ``head``.
        shape: of its output, (C, H, W), or (classes,).
        blocks: those of a stage, first to last; of the other parts one, that has no bypass.
        params: its parameters.
        macs: its multiply-adds for one image.
        receptive_field: side, in pixels, of the square that one output unit looks at through
            convolutions and pools; it may be larger than the image.
        whole_image: whether each unit depends on all of the image besides: through attention or
            a gate (squeeze-and-excitation), or because everything was pooled. The statistics of
            group norms are not meant.
        stride: pixels of the image from one unit to the next; 0 where there are no units.
    """

    name: str
    shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    params: int
    macs: int
    receptive_field: int
    whole_image: bool
    stride: int


@dataclass(frozen=True)
class Description:
    """All parts of a network for one image of shape ``image`` (C, H, W), and their sums."""

    name: str
    image: tuple[int, int, int]
    rows: tuple[Row, ...]

    @property
    def params(self) -> int:
        """All parameters."""
        return sum(row.params for row in self.rows)

    @property
    def macs(self) -> int:
        """Multiply-adds for one image."""
        return sum(row.macs for row in self.rows)


def describe_network(model: Classifier, image_size: int | None = None) -> Description:
    """Shapes, parameters, multiply-adds and receptive fields of a network.

    Args:
        model: anything built as stem, stages, norm and head; it is not changed.
        image_size: pixels; None takes what the network is meant for.
    """
    size = model.spec.image_size if image_size is None else image_size
    image = (model.spec.in_channels, size, size)
    first = next(model.parameters(), None)
    if first is None or first.device.type != "meta":
        model = copy.deepcopy(model).to("meta")
    x = torch.empty(1, *image, device="meta")
    was_training = model.training
    model.eval()
    rows: list[Row] = []
    maps: list[Tensor] = []
    with torch.no_grad(), Tracer() as tracer:
        tracer.start(x)
        x = _measure(rows, tracer, ("stem", model.stem), model.stem, x)
        for index, stage in enumerate(model.stages):
            x = _measure(rows, tracer, (f"stage {index + 1}", stage), stage, x)
            maps.append(x)
        plain = isinstance(model.norm, nn.Identity)
        maps[-1] = x if plain else _measure(rows, tracer, ("norm", model.norm), model.norm, x)
        last = maps[-model.spec.feature_stages :]
        _measure(rows, tracer, ("head", model.head), _head(model, last), last[0])
    model.train(was_training)
    return Description(model.spec.name, image, tuple(rows))


def count(model: Classifier) -> tuple[int, int]:
    """Parameters, and multiply-adds for one image of the size it is meant for."""
    described = describe_network(model)
    return described.params, described.macs


def _head(model: Classifier, maps: list[Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda _: cast(Tensor, model.head(model.head.pool(maps)))


def _measure(
    rows: list[Row],
    tracer: Tracer,
    part: tuple[str, nn.Module],
    run: Callable[[Tensor], Any],
    x: Tensor,
) -> Tensor:
    """Run one part and write its row; gives its output."""
    name, module = part
    before = tracer.flops
    order: Order = {}
    hooks = [one.register_forward_pre_hook(_noting(order)) for one in module.modules()]
    out: Tensor = run(x)
    for hook in hooks:
        hook.remove()
    reach = tracer.reach(out)
    rows.append(
        Row(
            name=name,
            shape=tuple(out.shape[1:]),
            blocks=_blocks(module, order) if name.startswith("stage") else (_whole(module, order),),
            params=sum(p.numel() for p in module.parameters()),
            macs=(tracer.flops - before) // 2,
            receptive_field=reach.field,
            whole_image=reach.whole,
            stride=reach.jump if out.ndim == 4 else 0,
        )
    )
    return out


Order = dict[nn.Module, int]
"""Module -> when it was run; drawn is the order of the forward, not that of registration."""


def _noting(order: Order) -> Callable[[nn.Module, Any], None]:
    def note(module: nn.Module, _: Any) -> None:
        order.setdefault(module, len(order))

    return note


def _blocks(stage: nn.Module, order: Order) -> tuple[Block, ...]:
    return tuple(_block(block, order) for block in stage.children())


def _block(block: nn.Module, order: Order) -> Block:
    """What a block is made of; one without ``residual`` is described as a whole."""
    residual = getattr(block, "residual", None)
    if not isinstance(residual, nn.Module):
        return Block(tuple(_layers(block, order)), "")
    bypass = _bypass(getattr(block, "shortcut", None), order)
    return Block(tuple(_layers(residual, order)), bypass)


def _whole(module: nn.Module, order: Order) -> Block:
    """Stem, norm or head: down to the last layer."""
    leaves = sorted((one for one in module.modules() if one in order), key=order.__getitem__)
    return Block(tuple(layer for leaf in leaves if (layer := _layer(leaf))), "")


def _bypass(shortcut: object, order: Order) -> str:
    if not isinstance(shortcut, nn.Module):
        return ""
    if isinstance(shortcut, nn.Identity):
        return "x"
    layers = _layers(shortcut, order)
    return f"{', '.join(layers) or _words(shortcut)} of x"


def _words(module: nn.Module) -> str:
    """``SqueezeExcite`` -> ``squeeze excite``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", type(module).__name__).lower()


_SILENT = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.Identity, nn.Dropout,
           nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Flatten, nn.AdaptiveAvgPool2d)  # fmt: skip
"""Not drawn: every net has them."""


def _layers(module: nn.Module, order: Order) -> list[str]:
    """The drawn layers below ``module``, in the order in which they were run."""
    if (own := _layer(module)) is not None:
        return [own] if own else []
    found: list[str] = []
    for child in sorted(module.children(), key=lambda one: order.get(one, len(order))):
        # A part with convolutions of its own inside a branch (a gate, attention) is one word.
        composed = _layer(child) is None and not isinstance(child, nn.Sequential | nn.ModuleList)
        found += [_words(child)] if composed else _layers(child, order)
    return found


def _layer(module: nn.Module) -> str | None:
    """A leaf as text, empty where it is not drawn; None where it has parts to look at."""
    if isinstance(module, _SILENT):
        return ""
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        kernel = "x".join(map(str, module.kernel_size))
        stride = f" /{module.stride[0]}" if module.stride[0] > 1 else ""
        groups = f", {module.groups} groups" if module.groups > 1 else ""
        return f"{kernel} {module.out_channels}{stride}{groups}"
    if isinstance(module, nn.Linear):
        return f"linear {module.out_features}"
    if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
        word = "max" if isinstance(module, nn.MaxPool2d) else "average"
        stride = f" /{module.stride}" if module.stride != 1 else ""
        return f"{word} pool{stride}"
    if next(module.children(), None) is None:
        held = [*module.parameters(), *module.buffers()]  # nothing: an activation, or drop path
        return _words(module) if held else ""
    return None
