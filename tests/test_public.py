from __future__ import annotations

import subprocess
import sys

import pytest

import plusx
from plusx.errors import UsageError


def test_every_public_name_can_be_had() -> None:
    assert plusx.__all__ == sorted(plusx.__all__)
    for name in plusx.__all__:
        assert getattr(plusx, name) is not None
    assert dir(plusx) == plusx.__all__
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        plusx.trian  # noqa: B018


@pytest.mark.parametrize("what", ["import plusx", "import plusx.cli.app"])
def test_importing_loads_nothing_heavy(what: str) -> None:
    heavy = ("torch", "numpy", "PIL", "sklearn", "rich", "matplotlib", "safetensors")
    code = f"{what}; import sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_shortest_python() -> None:
    import torch

    net = plusx.create("resnet18", classes=3, weights="none")
    assert net(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_an_unknown_option_of_train_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown option epoch; known: .*epochs.*weights"):
        plusx.train("photos/", epoch=3)
