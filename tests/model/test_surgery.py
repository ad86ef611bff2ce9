from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from plusx.errors import UsageError
from plusx.model import ResNet, ResNetSpec, cifar, variant
from plusx.model.surgery import (
    blocks,
    fold_batchnorm,
    freeze,
    replace_head,
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
    ],
    ids=lambda spec: f"{spec.name}-{spec.shortcut}",
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
