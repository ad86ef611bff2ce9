"""What the tests of the model room share."""

from __future__ import annotations

import pytest
import torch
from torch import nn


def _randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Norms as after training (statistics, scale and shift all random), evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = module.num_features
            module.running_mean.copy_(torch.randn(size, generator=generator) * 0.1)
            module.running_var.copy_(torch.rand(size, generator=generator) + 0.5)
            with torch.no_grad():
                module.weight.copy_(torch.rand(size, generator=generator) * 0.5 + 0.25)
                module.bias.copy_(torch.randn(size, generator=generator) * 0.1)
    return model.eval()


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Many small runs: waiting threads would cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(name="randomise")
def randomise_fixture():
    """A function that gives a model random norms and puts it in evaluation mode."""
    return _randomise
