from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from plusx.engines import Engine, TorchEngine
from plusx.weights import create

CPU = torch.device("cpu")


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_it_gives_what_the_network_gives(
    tiny_weights: Path, images: torch.Tensor, blocks: int
) -> None:
    model = create(weights=str(tiny_weights)).eval()
    engine: Engine = TorchEngine(model, device=CPU, top_blocks=blocks)
    found = engine.run(images.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(found.logits, model(images), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.features, model.features(images), rtol=1e-3, atol=1e-4)


def test_later_changes_to_the_model_do_not_reach_it(
    tiny_weights: Path, images: torch.Tensor
) -> None:
    model = create(weights=str(tiny_weights)).eval()
    engine = TorchEngine(model, device=CPU)
    before = engine.run(images.numpy()).logits
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert np.array_equal(engine.run(images.numpy()).logits, before)


def test_bfloat16_is_close_and_answers_in_float32(tiny_weights: Path, images: torch.Tensor) -> None:
    model = create(weights=str(tiny_weights)).eval()
    exact = TorchEngine(model, device=CPU).run(images.numpy())
    fast = TorchEngine(model, device=CPU, dtype=torch.bfloat16).run(images.numpy())
    assert fast.logits.dtype == fast.features.dtype == np.float32
    assert not np.array_equal(fast.logits, exact.logits)
    scale = np.abs(exact.logits).max()
    assert np.abs(fast.logits - exact.logits).max() < 0.05 * scale


def test_the_model_keeps_its_mode_and_its_norms(tiny_weights: Path, images: torch.Tensor) -> None:
    model = create(weights=str(tiny_weights)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    TorchEngine(model, device=CPU).run(images.numpy())
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
