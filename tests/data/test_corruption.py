from __future__ import annotations

import numpy as np
import pytest
import torch

from plusx.data.corruption import STRENGTHS, corrupt
from plusx.errors import UsageError


def photograph(channels: int = 3) -> torch.Tensor:
    """A smooth picture with a disc, 120 x 160."""
    y, x = np.mgrid[0:120, 0:160]
    disc = 120.0 * ((y - 60) ** 2 + (x - 80) ** 2 < 900)
    planes = [60 + 40 * np.sin(x / (9 + i)) * np.cos(y / 11) + disc for i in range(channels)]
    return torch.from_numpy(np.stack(planes, 2).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("kind", STRENGTHS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_more_strength_is_more_harm(kind: str, channels: int) -> None:
    image = photograph(channels)
    plain = torch.nn.functional.interpolate(image.permute(2, 0, 1)[None].float(), (64, 85),
                                            mode="bilinear", antialias=True)[0]  # fmt: skip
    harm = []
    for strength in (1, 3, 5):
        rng = np.random.default_rng(0)
        harmed = corrupt(image, kind, strength, size=64, rng=rng)
        assert harmed.shape == (64, 85, channels)
        assert harmed.dtype == torch.uint8
        harm.append(float((harmed.permute(2, 0, 1).float() - plain).abs().mean()))
    assert harm == sorted(harm)
    assert harm[0] > 0.05
    assert harm[2] > 1.3 * harm[0]


def test_the_same_seed_gives_the_same_harm() -> None:
    for kind in STRENGTHS:
        one, two, other = (
            corrupt(photograph(), kind, 3, size=64, rng=np.random.default_rng(seed))
            for seed in (1, 1, 2)
        )
        assert torch.equal(one, two)
        if kind == "noise":
            assert not torch.equal(one, other)
        elif kind != "rotation":  # which may turn to the same side
            assert torch.equal(one, other)


def test_unknown_kinds_and_strengths_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="corruption 'fog' of strength 1"):
        corrupt(photograph(), "fog", 1, size=64, rng=rng)
    with pytest.raises(UsageError, match="strength 6"):
        corrupt(photograph(), "blur", 6, size=64, rng=rng)
