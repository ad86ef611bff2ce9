"""What holds for every legal spec, on specs drawn at random."""

from __future__ import annotations

import json
from typing import Any, get_args

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from plusx.model import ResNet, ResNetSpec
from plusx.model.attention import CHANNEL_ATTENTION
from plusx.model.spec_check import (
    BlockKind,
    NormKind,
    Order,
    PoolKind,
    ShortcutKind,
    StemKind,
    StrideBlock,
    StrideSite,
)
from plusx.model.surgery import blocks, drop_blocks, droppable, fold_batchnorm, split_trunk

SIZE = 20  # pixels: odd maps come after the first stride by two


def choice(kind: Any) -> st.SearchStrategy[str]:
    return st.sampled_from(get_args(kind))


@st.composite
def specs(draw) -> ResNetSpec:
    """A legal spec of a small network; every choice and field is drawn."""
    stages = draw(st.integers(1, 3))
    block, norm = draw(choice(BlockKind)), draw(choice(NormKind))
    bottleneck, unit = block == "bottleneck", 64 if norm == "group" else 4
    attends = draw(st.integers(0, stages)) if bottleneck else 0
    cardinality = draw(st.sampled_from([1, 2, 4])) if bottleneck and not attends else 1
    shortcut = draw(choice(ShortcutKind).filter(lambda kind: kind != "identity"))
    order, plain = draw(choice(Order)), shortcut == "none"
    widths = st.integers(1, 2).map(lambda n: n * unit)
    grown = draw(st.lists(widths, min_size=stages, max_size=stages))
    return ResNetSpec(
        name=draw(st.text(max_size=12)),
        block=block,
        depths=tuple(draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages))),
        widths=tuple(sorted(grown)),  # zero padding cannot take channels away
        stem=draw(choice(StemKind)),
        stem_width=unit,
        stem_stride=draw(st.integers(1, 2)),
        stem_pool=draw(choice(PoolKind)),
        shortcut=shortcut,
        bottleneck_stride=draw(choice(StrideSite)),
        feature_stages=draw(st.integers(1, stages)),
        in_channels=draw(st.integers(1, 4)),
        classes=draw(st.integers(1, 5)),
        image_size=SIZE,
        order=order,
        cardinality=cardinality,
        base_width=draw(st.sampled_from([64, 128])) if bottleneck else 64,
        norm=norm,
        norm_eps=draw(st.sampled_from([1e-5, 1.001e-5])),
        channel_attention=draw(st.sampled_from(["none", *CHANNEL_ATTENTION])),
        self_attention=attends,
        blur=draw(st.booleans()),
        stride_block=draw(choice(StrideBlock)),
        conv_bias=draw(st.booleans()) if order == "pre" else False,
        drop_path=0.0 if plain else draw(st.sampled_from([0.0, 0.3])),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        zero_init_last=False if plain else draw(st.booleans()),
    )


def network(spec: ResNetSpec) -> ResNet:
    """With norms as after a training, so that each of its parts matters."""
    torch.manual_seed(0)
    model = ResNet(spec)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(module.weight, 0.3, 0.7)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model


def image(spec: ResNetSpec, n: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, spec.in_channels, SIZE, SIZE, generator=generator)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * other.abs().max() + 1e-6)


@settings(max_examples=100, deadline=None)
@given(specs())
def test_json_round_trip(spec):
    text = json.dumps(spec.to_dict())
    assert ResNetSpec.from_json(text) == spec
    assert hash(ResNetSpec.from_json(text)) == hash(spec)


@settings(max_examples=40, deadline=None)
@given(specs())
def test_it_runs_forward_and_backward(spec):
    model = network(spec).train()
    logits = model(image(spec))
    assert logits.shape == (2, spec.classes)
    logits.square().mean().backward()
    grads = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in grads)
    # Built at the size it is meant for: shapes foreseen are the shapes that come.
    maps = model.pyramid(image(spec))
    assert [m.shape[1] for m in maps.values()] == list(spec.stage_channels)


@settings(max_examples=30, deadline=None)
@given(specs())
@torch.no_grad()
def test_it_splits_at_every_block_with_equal_output(spec):
    model = network(spec).eval()
    whole = model(image(spec))
    for n in range(spec.blocks + 1):
        trunk, top = split_trunk(model, n)
        assert close(top(*trunk(image(spec))), whole)


@settings(max_examples=30, deadline=None)
@given(specs())
@torch.no_grad()
def test_it_folds_to_the_same_function(spec):
    model = network(spec).eval()
    assert close(fold_batchnorm(model)(image(spec)), model(image(spec)))


@settings(max_examples=30, deadline=None)
@given(specs(), st.data())
@torch.no_grad()
def test_it_loses_any_droppable_block_and_still_runs(spec, data):
    model = network(spec).eval()
    while numbers := droppable(model):
        number = data.draw(st.sampled_from(numbers))
        left = [block for at, block in enumerate(blocks(model)) if at != number]
        slim = drop_blocks(model, [number])
        assert slim.spec.blocks == model.spec.blocks - 1
        built = ResNet(slim.spec).eval()
        built.load_state_dict(slim.state_dict())  # as its spec says, so it saves and loads
        assert torch.equal(built(image(spec)), slim(image(spec)))
        x = model.stem(image(spec))
        for block in left:
            x = block(x)
        assert torch.equal(slim.norm(slim.pyramid(image(spec))[f"C{spec.stages + 1}"]),
                           model.norm(x))  # fmt: skip
        model = slim
