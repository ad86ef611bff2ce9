"""VGG and the simple CNN: what is built, and that the line's operations work on them."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from plusx.engines import TorchEngine
from plusx.errors import SpecError, UsageError
from plusx.model.baselines import (
    BASELINES,
    CNN,
    VGG,
    CNNSpec,
    HiddenBlock,
    VGGSpec,
    baseline,
    cnn,
)
from plusx.model.classifier import Classifier
from plusx.model.surgery import (
    blocks,
    fold_batchnorm,
    replace_head,
    split_trunk,
    training_mode,
    unfreeze_last_blocks,
)

THIN = VGGSpec("thin", (1, 1, 2, 2, 2), (4, 6, 8, 8, 8), hidden=16, classes=5, image_size=64)


def thin(norm: str = "batch") -> VGG:
    torch.manual_seed(3)
    return VGG(THIN.replace(norm=norm))


def small_cnn() -> CNN:
    torch.manual_seed(3)
    return CNN(CNNSpec("cnn", (4, 6, 8, 8), classes=5))


def image(size: int = 64) -> torch.Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


# Table 2 of the paper, in millions: A 133, B 133, D 138, E 144; to the last one as torchvision's.
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("vgg11", 132_863_336),
        ("vgg13", 133_047_848),
        ("vgg16", 138_357_544),
        ("vgg19", 143_667_240),
        ("vgg11_bn", 132_868_840),
        ("vgg16_bn", 138_365_992),
        ("cnn", 391_466),
    ],
)
def test_parameters_are_the_published_ones(name, parameters):
    spec = BASELINES[name]
    with torch.device("meta"):
        model = VGG(spec) if isinstance(spec, VGGSpec) else CNN(spec)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(blocks(model)) == spec.blocks
    assert len(model.stages) == spec.stages


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_a_spec_survives_json(name):
    spec = BASELINES[name].replace(classes=3, in_channels=1)
    fields = spec.to_dict()
    assert fields["family"] == spec.family
    assert type(spec).from_dict(fields) == spec


@pytest.mark.parametrize("make", [thin, lambda: thin("none"), small_cnn])
@pytest.mark.parametrize("size", [32, 64, 96])
def test_every_split_gives_the_same_logits_and_so_does_folding(make, size, randomise):
    model = randomise(make())
    x = image(size)
    with torch.no_grad():
        whole = model(x)
        assert model.features(x).shape == (2, model.spec.feature_channels)
        assert whole.abs().max() > 1e-3
        for n in range(model.spec.blocks + 1):
            trunk, top = split_trunk(model, n)
            torch.testing.assert_close(top(*trunk(x)), whole, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(fold_batchnorm(model)(x), whole, rtol=1e-4, atol=1e-5)


def test_folding_leaves_no_norm_behind(randomise):
    folded = fold_batchnorm(randomise(thin()))
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())


@pytest.mark.parametrize("top", [0, 2, 5, 10])
def test_the_engine_runs_it_whole_or_split(top, randomise):
    model = randomise(thin())
    engine = TorchEngine(model, device=torch.device("cpu"), top_blocks=top)
    with torch.no_grad():
        found = torch.from_numpy(engine.run(image().numpy()).logits)
        torch.testing.assert_close(found, model(image()), rtol=1e-4, atol=1e-5)


def test_the_last_two_blocks_are_the_hidden_layers():
    model = thin()
    unfreeze_last_blocks(model, 2)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith(("stages.5.", "head.")) for name in trained)
    assert len(trained) == 6


def test_dropout_drops_only_in_layers_that_are_trained():
    model = thin("none").eval()
    x = image()
    plain = model(x)
    unfreeze_last_blocks(model, 0)
    training_mode(model, norm_statistics=False)
    assert torch.equal(model(x), plain)
    unfreeze_last_blocks(model, 1)
    training_mode(model, norm_statistics=False)
    torch.manual_seed(0)
    dropped = model.features(x)
    kept = model.eval().features(x)
    assert int(((dropped == 0) & (kept > 0)).sum()) > 0
    torch.testing.assert_close(dropped[dropped > 0], 2 * kept[dropped > 0])


def test_dropout_can_be_left_out():
    model = VGG(THIN.replace(dropout=0)).train()
    assert torch.equal(model(image()), model(image()))


def test_a_large_image_is_read_densely_as_in_section_3_2():
    """Logits of 288 pixels (a map of 9x9) are the mean of those of the 9 places of a 7x7."""
    block = HiddenBlock(2, 3, 7, 0.0).eval()
    maps = torch.randn(1, 2, 9, 9)
    assert block(maps).shape == (1, 3, 3, 3)
    torch.testing.assert_close(block(maps)[..., 1, 2], block(maps[..., 1:8, 2:9])[..., 0, 0])


def test_blocks_that_can_be_dropped_and_the_spec_without_them(randomise):
    """The paper on paths (Veit et al. 2016) removes layers of a VGG: all but what changes shape."""
    model = randomise(VGG(THIN.replace(depths=(1, 1, 3, 3, 2))))
    found = [i for i, block in enumerate(blocks(model)) if getattr(block, "droppable", False)]
    assert found == [3, 5, 6, 8]
    lengths = [len(stage) for stage in model.stages]
    assert model.spec.replace(depths=lengths) == model.spec
    lengths[2] -= 1
    del model.stages[2][1]
    slim = VGG(model.spec.replace(depths=tuple(lengths))).eval()
    old = list(model.state_dict().values())
    slim.load_state_dict(dict(zip(slim.state_dict(), old, strict=True)))
    assert torch.equal(slim(image()), model(image()))


def test_the_initial_signal_neither_dies_nor_explodes():
    for model in (thin(), thin("none"), small_cnn()):
        with torch.no_grad():
            assert 1e-3 < float(model.train().features(image()).std()) < 1e2


def test_the_simple_cnn_is_sized_by_its_image():
    assert cnn(64) == BASELINES["cnn"]
    assert [len(cnn(size).widths) for size in (16, 32, 64, 100, 128, 224, 256)] == [
        4, 4, 4, 4, 5, 5, 6
    ]  # fmt: skip
    assert baseline("cnn", image_size=224).widths == (32, 64, 128, 256, 256)
    assert baseline("vgg11", image_size=96) == BASELINES["vgg11"].replace(image_size=96)


def test_a_new_head_and_a_gradient_everywhere():
    for model in (thin(), small_cnn()):
        replace_head(model, 3)
        assert isinstance(model, Classifier)
        model.train()(image()).square().mean().backward()
        assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depths": (1, 2)}, "differ in length"),
        ({"depths": ()}, "list of whole numbers"),
        ({"depths": (1, 1, 1, 1, 2000)}, "more than 1000 convolutions"),
        ({"widths": (4, 4, 4, 4, 0)}, "widths=0 must be a whole number"),
        ({"norm": "group"}, "norm='group' is not one of none, batch"),
        ({"dropout": 1}, "dropout=1 must be at least 0 and below 1"),
        ({"dropout": "half"}, "dropout='half' must be"),
        ({"hidden": 2.5}, "hidden=2.5"),
        ({"classes": 0}, "classes=0"),
        ({"name": 3}, "name=3 must be text"),
        ({"image_size": 31}, "image_size=31 is too small: .* halves it 5 times; give at least 32"),
    ],
)
def test_a_vgg_that_cannot_be_built(changes, said):
    with pytest.raises(SpecError, match=said):
        THIN.replace(**changes)


def test_bad_fields_of_a_baseline():
    with pytest.raises(SpecError, match="unknown field block; known: name, depths, widths"):
        VGGSpec.from_dict({"family": "vgg", "depths": [1], "block": "basic"})
    with pytest.raises(SpecError, match="missing field depths"):
        VGGSpec.from_dict({"family": "vgg"})
    with pytest.raises(SpecError, match="image_size=15 is too small"):
        CNNSpec("cnn", image_size=15)
    with pytest.raises(UsageError, match="baseline 'vgg12' is unknown; did you mean vgg1"):
        baseline("vgg12")


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        THIN.norm = "batch"  # type: ignore[misc]


@pytest.mark.parametrize("make", [thin, lambda: thin("none"), small_cnn])
def test_it_traces_exports_and_runs_in_half_precision(make, randomise):
    model, x = randomise(make()), image()
    with torch.no_grad():
        whole = model(x)
        batch = {0: torch.export.Dim("n", min=1, max=64)}
        exported = torch.export.export(model, (x,), dynamic_shapes=(batch,)).module()
        torch.testing.assert_close(exported(x.repeat(3, 1, 1, 1))[:2], whole)
        traced = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(traced(x), whole)
        half = copy.deepcopy(model).to(torch.bfloat16).to(memory_format=torch.channels_last)
        found = half(x.to(torch.bfloat16, memory_format=torch.channels_last))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), whole, rtol=0.1, atol=0.1 * float(whole.abs().max()))
