"""Networks that others have trained, as their files are."""

from __future__ import annotations

import json

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from plusx.weights import create_network

THIN = {
    "name": "resnet50_thin_v1",
    "block": "bottleneck",
    "depths": [3, 4, 6, 3],
    "widths": [32, 64, 128, 256],
    "bottleneck_stride": "1x1",
    "stem_pool": "max-ceil",
}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_the_imagenet_pair_gives_torchvisions_logits(shared_data, name):
    path = shared_data / "weights" / f"{name}_imagenet_pq.safetensors"
    network = create_network(name, weights=str(path))
    assert network.model.spec.classes == 1000
    peer = getattr(torchvision.models, name)()
    peer.load_state_dict(load_file(path))  # copied into float32 there as well
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        ours, theirs = network.model.eval()(x), peer.eval()(x)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_the_thin_v1_net_through_a_spec_file(shared_data, tmp_path):
    (tmp_path / "thin.json").write_text(json.dumps(THIN))
    path = shared_data / "weights" / "resnet50_thin_v1.safetensors"
    network = create_network(str(tmp_path / "thin.json"), weights=str(path))
    assert network.model.spec.classes == 2  # the file's own head
    assert "read as v1 (stride on the first 1x1)" in network.notes[1]
    assert network.model.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, 2)


@pytest.mark.parametrize(
    ("depth", "file", "parameters"),
    [
        (20, "resnet20-12fca82f.th", 269_722),
        (32, "resnet32-d509ac18.th", 464_154),
        (44, "resnet44-014dd654.th", 658_586),
        (56, "resnet56-4bfd9763.th", 853_018),
    ],
)
def test_the_cifar_nets(shared_data, depth, file, parameters):
    network = create_network(f"resnet{depth}_cifar_a", weights=str(shared_data / "weights" / file))
    assert network.model.spec.classes == 10
    assert network.preprocessing.size == network.preprocessing.resize == 32
    assert sum(p.numel() for p in network.model.parameters()) == parameters
    path = shared_data / "weights" / file
    stem = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert torch.equal(network.model.stem.conv.weight, stem["module.conv1.weight"])
