from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from plusx.errors import SpecError, UsageError
from plusx.model import ResNet, ResNetSpec, cifar, variant
from plusx.model.blocks import DropPath
from plusx.model.recalibrate import recalibrate_batchnorm
from plusx.model.surgery import (
    blocks,
    drop_blocks,
    droppable,
    fold_batchnorm,
    freeze,
    plain_twin,
    replace_head,
    replace_stem,
    split_trunk,
    training_mode,
    unfreeze_last_blocks,
)

FOUR = ResNetSpec("four", "bottleneck", (2, 1, 3, 1), (4, 4, 8, 8), stem_width=8, classes=5)


def image(n: int = 2, size: int = 64) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(2))


def names_trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_replace_head(randomise):
    model = randomise(ResNet(FOUR))
    before = model.features(image())
    replace_head(model, 3)
    assert model.spec.classes == 3
    assert model(image()).shape == (2, 3)
    assert torch.equal(model.features(image()), before)


def test_blocks_come_first_to_last():
    model = ResNet(FOUR)
    assert len(blocks(model)) == FOUR.blocks == 7
    assert blocks(model)[0] is model.stages[0][0]
    assert blocks(model)[-1] is model.stages[3][0]


@pytest.mark.parametrize(
    ("n", "prefixes"),
    [
        (0, ("head.",)),
        (1, ("head.", "stages.3.")),
        (3, ("head.", "stages.3.", "stages.2.1.", "stages.2.2.")),
        (7, ("head.", "stages.")),
    ],
)
def test_unfreezing_the_last_blocks(n, prefixes):
    model = ResNet(FOUR)
    unfreeze_last_blocks(model, n)
    assert names_trainable(model) == {
        name for name, _ in model.named_parameters() if name.startswith(prefixes)
    }


@pytest.mark.parametrize("n", [-1, 8])
@pytest.mark.parametrize("function", [unfreeze_last_blocks, split_trunk])
def test_more_blocks_than_there_are(function, n):
    with pytest.raises(UsageError, match=f"^{n} blocks were asked for, but four has 7"):
        function(ResNet(FOUR), n)


def test_freeze():
    model = ResNet(FOUR)
    freeze(model)
    assert names_trainable(model) == set()


@pytest.mark.parametrize("norm_statistics", [True, False])
@pytest.mark.parametrize("n", [0, 2])
def test_frozen_is_frozen_to_the_bit_after_a_training_step(randomise, n, norm_statistics):
    torch.manual_seed(0)
    model = randomise(ResNet(FOUR))
    unfreeze_last_blocks(model, n)
    training_mode(model, norm_statistics=norm_statistics)
    before = copy.deepcopy(model.state_dict())
    trainable = names_trainable(model)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 0.1)
    for _ in range(2):
        nn.functional.cross_entropy(model(image(4)), torch.arange(4)).backward()
        optimiser.step()

    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert trainable <= changed
    buffers = changed - trainable
    if norm_statistics and n:
        own = {name.rpartition(".")[0] for name in trainable if ".norm" in name}
        assert {name.rpartition(".")[0] for name in buffers} == own
        assert all(name.startswith(("stages.2.2.", "stages.3.")) for name in buffers)
    else:
        assert buffers == set()


@pytest.mark.parametrize("feature_stages", [1, 2, 3, 4])
@pytest.mark.parametrize("shortcut", ["conv", "none"])
def test_a_trunk_and_its_top_are_the_model_at_every_block(randomise, feature_stages, shortcut):
    model = randomise(ResNet(FOUR.replace(feature_stages=feature_stages, shortcut=shortcut)))
    whole = model(image())
    for n in range(FOUR.blocks + 1):
        trunk, top = split_trunk(model, n)
        torch.testing.assert_close(top(*trunk(image())), whole, rtol=1e-6, atol=1e-6)
        assert len(list(trunk.parameters())) + len(list(top.parameters())) == len(
            list(model.parameters())
        )


def test_training_the_top_trains_the_model():
    model = ResNet(cifar(8))
    _, top = split_trunk(model, 1)
    ids = {id(p) for p in model.parameters()}
    assert all(id(p) in ids for p in top.parameters())


def test_a_split_is_for_any_size_of_batch_even_none(randomise):
    trunk, top = split_trunk(randomise(ResNet(FOUR)), 2)
    assert top(*trunk(image(0))).shape == (0, 5)


@pytest.mark.parametrize(
    "spec",
    [
        FOUR,
        FOUR.replace(shortcut="conv-all", feature_stages=3),
        cifar(14, "a"),
        variant("resnet18"),
        FOUR.replace(stem="deep", shortcut="avg-conv", channel_attention="se"),
        FOUR.replace(stem_pool="max-blur", blur=True, cardinality=2),
    ],
    ids=lambda spec: f"{spec.name}-{spec.stem}-{spec.stem_pool}-{spec.shortcut}",
)
def test_folded_norms_are_the_same_function(randomise, spec):
    model = randomise(ResNet(spec))
    before = copy.deepcopy(model.state_dict())
    folded = fold_batchnorm(model)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    x = image(size=32)
    expected = model(x)
    assert (folded(x) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())  # a copy
    assert names_trainable(folded) == set()


PRE = FOUR.replace(name="pre", order="pre")


def test_a_norm_behind_self_attention_is_not_folded(randomise):
    model = randomise(ResNet(FOUR.replace(self_attention=1, image_size=32)))
    folded = fold_batchnorm(model)
    left = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert left == ["stages.3.0.residual.norm2"]
    torch.testing.assert_close(folded(image(size=32)), model(image(size=32)))


def test_a_norm_that_no_convolution_precedes_is_not_folded(randomise):
    folded = fold_batchnorm(randomise(ResNet(PRE)))
    left = {name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert left == {"norm.norm"} | {
        name for name, _ in ResNet(PRE).named_modules() if name.endswith("preact.norm")
    }


def test_the_last_norm_is_trained_with_the_last_block():
    model = ResNet(PRE)
    unfreeze_last_blocks(model, 0)
    assert not model.norm.norm.weight.requires_grad
    unfreeze_last_blocks(model, 1)
    assert model.norm.norm.weight.requires_grad


def test_dropout_works_in_the_trained_part_only():
    model = ResNet(FOUR.replace(drop_path=0.5, dropout=0.5))
    unfreeze_last_blocks(model, 2)
    training_mode(model, norm_statistics=False)
    on = [any(m.training for m in block.modules() if isinstance(m, nn.Dropout | DropPath))
          for block in blocks(model)]  # fmt: skip
    assert on == [False] * 5 + [True] * 2


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("resnet18", [0, 1, 3, 5, 7]),
        ("resnet50", [1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 14, 15]),
        ("resnet50v2_keras", [1, 4, 5, 8, 9, 10, 11, 14, 15]),  # its stages stride in the last
        ("resnet8_cifar_a", []),
    ],
)
def test_which_blocks_are_droppable(name, numbers):
    with torch.device("meta"):
        assert droppable(ResNet(variant(name))) == numbers


def test_dropping_blocks(randomise):
    model = randomise(ResNet(FOUR))
    slim = drop_blocks(model, [5, 1])
    assert slim.spec == FOUR.replace(depths=(1, 1, 2, 1))
    assert model.spec == FOUR
    kept = [block for at, block in enumerate(blocks(model)) if at not in (1, 5)]
    x = model.stem(image())
    for block in kept:
        x = block(x)
    assert torch.equal(slim(image()), model.head(x.mean(dim=(2, 3))))
    ids = {id(p) for p in model.parameters()}
    assert not any(id(p) in ids for p in slim.parameters())  # a copy


@pytest.mark.parametrize("number", [0, 2, 7, -1])
def test_blocks_that_cannot_be_dropped(number):
    with pytest.raises(
        UsageError, match=rf"^block {number} of four cannot be dropped.* \[1, 4, 5\]"
    ):
        drop_blocks(ResNet(FOUR), [1, number])


def test_a_stage_keeps_a_block():
    with pytest.raises(UsageError, match="stage 0 of resnet18 would have no block left"):
        drop_blocks(ResNet(variant("resnet18")), [0, 1])


def test_a_plain_twin_keeps_the_weights(randomise):
    model = randomise(ResNet(FOUR))
    twin = plain_twin(model)
    assert twin.spec == FOUR.plain_twin()
    assert not twin.training
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in twin.state_dict().items())
    with pytest.raises(SpecError, match="plain_four has no shortcuts"):
        plain_twin(twin)


def test_a_new_stem(randomise):
    model = randomise(ResNet(FOUR))
    before = copy.deepcopy(model.stages.state_dict())
    replace_stem(model, stem="3x3", stem_stride=1, stem_pool="none", in_channels=4, image_size=32)
    assert model.pyramid(torch.zeros(1, 4, 32, 32))["C2"].shape[-1] == 32
    assert all(torch.equal(v, before[k]) for k, v in model.stages.state_dict().items())
    ResNet(model.spec).load_state_dict(model.state_dict())  # as its spec says
    assert not model.training


def test_stems_that_do_not_fit():
    with pytest.raises(UsageError, match="widths belongs to the whole network"):
        replace_stem(ResNet(FOUR), widths=(1, 2, 3, 4))
    attends = ResNet(FOUR.replace(self_attention=1, image_size=64))
    with pytest.raises(UsageError, match="other shapes behind its stem"):
        replace_stem(attends, stem_stride=1)
    replace_stem(attends, stem_stride=1, image_size=32)  # maps as large as before


@pytest.mark.parametrize("spec", [FOUR, PRE], ids=["post", "pre"])
def test_recalibrated_statistics_are_those_of_all_images(randomise, spec):
    model = randomise(ResNet(spec))
    freeze(model)
    batches = [image(5), image(3, size=32), image(2)]
    seen: dict[nn.Module, list[torch.Tensor]] = {}
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    handles = [n.register_forward_pre_hook(lambda m, x: seen.setdefault(m, []).append(x[0].clone()))
               for n in norms]  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    assert recalibrate_batchnorm(model, iter(batches)) == 10
    for handle in handles:
        handle.remove()
    for norm in norms:
        values = torch.cat([x.transpose(0, 1).flatten(1) for x in seen[norm]], dim=1)
        torch.testing.assert_close(norm.running_mean, values.mean(dim=1))
        torch.testing.assert_close(norm.running_var, values.var(dim=1))
    assert not any(m.training for m in model.modules())
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert all("running_" in name for name in changed)
    assert len(changed) == 2 * len(norms)


def test_recalibration_within_parts_leaves_the_others(randomise):
    model = randomise(ResNet(FOUR))
    before = copy.deepcopy(model.state_dict())
    behind = blocks(model)[2:]
    recalibrate_batchnorm(model, [image(4)], within=behind)
    inside = {id(m) for part in behind for m in part.modules()}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            same = torch.equal(module.running_mean, before[f"{name}.running_mean"])
            assert same != (id(module) in inside), name


def test_recalibration_that_fails_changes_nothing(randomise):
    model = randomise(ResNet(FOUR)).train()
    before = copy.deepcopy(model.state_dict())

    def broken():
        yield image()
        raise ValueError("a file is gone")

    with pytest.raises(ValueError, match="gone"):
        recalibrate_batchnorm(model, broken())
    with pytest.raises(UsageError, match="no images"):
        recalibrate_batchnorm(model, [])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    with pytest.raises(UsageError, match="no BatchNorm"):
        recalibrate_batchnorm(ResNet(variant("resnet50_gn")), [image()])
