"""Downloads against a local server that speaks the hub's protocol (see conftest).

Each download runs in a process of its own with HF_ENDPOINT and HF_HOME set, as a user's would.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from plusx.model import ResNet, variant
from plusx.weights.load import disk_state

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ID = "timm/resnet18.test"
NOWHERE = "http://127.0.0.1:9"  # the discard port: connections are refused

DOWNLOAD = """
import sys
from plusx.errors import PlusxError
from plusx.weights.hub import download
for hub_id in sys.argv[1:]:
    try:
        got = download(hub_id)
    except PlusxError as error:
        print(type(error).__name__, error, sep="|")
    else:
        print("ok", got.path, got.commit, "; ".join(got.notes), sep="|")
assert "torch" not in sys.modules
"""

CREATE = """
import sys
from plusx.errors import PlusxError
from plusx.weights import create_network
for model in sys.argv[2:]:
    try:
        got = create_network(model.strip() or None, weights=sys.argv[1])
    except PlusxError as error:
        print(type(error).__name__, error, sep="|")
    else:
        print(got.origin, got.sha256, got.model.spec.name, got.class_names,
              got.preprocessing.resize, got.preprocessing.interpolation,
              got.model.head.fc.weight.detach().sum().item(), len(got.notes), sep="|")
"""


def config() -> bytes:
    settings = {
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.95,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 3,
    }
    content = {"architecture": "resnet18", "num_classes": 3, "label_names": ["a", "b", "c"]}
    return json.dumps(content | {"pretrained_cfg": settings}).encode()


@pytest.fixture(autouse=True)
def _one_entry(hub):
    """Its weights are 60 kB of noise."""
    noise = torch.randint(256, (60_000,), generator=torch.Generator().manual_seed(0))
    hub.files |= {"config.json": config(), "model.safetensors": bytes(noise.tolist())}


class Machine:
    """A user's machine: a cache folder and an environment."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def run(self, code: str, *args: str, join: bool = True, **env: str) -> list[str]:
        """The fields of what is printed, or its lines."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *args],
            capture_output=True,
            text=True,
            env={**inherited, "HF_HOME": str(self.home), "OMP_NUM_THREADS": "1", **env},
            timeout=120,
        )
        assert result.stderr == ""  # silent when piped
        assert result.returncode == 0
        return result.stdout.rstrip("\n").split("|") if join else result.stdout.splitlines()

    def download(self, endpoint: str, hub_id: str = ID, **env: str) -> list[str]:
        return self.run(DOWNLOAD, hub_id, HF_ENDPOINT=endpoint, **env)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "hf")


def test_a_download_is_cached_and_used_offline(hub, machine):
    kind, path, commit, notes = machine.download(hub.url)
    assert (kind, commit, notes) == ("ok", COMMIT, "")
    assert Path(path).read_bytes() == hub.files["model.safetensors"]
    assert sum("GET" in r and "model.safetensors" in r for r in hub.requests) == 1

    hub.requests.clear()
    assert machine.download(hub.url)[:2] == ["ok", path]
    assert not any("GET" in r and "model.safetensors" in r for r in hub.requests)

    assert machine.download(NOWHERE) == [
        "ok",
        path,
        COMMIT,
        f"{ID}: {NOWHERE} cannot be reached; used the cached copy",
    ]
    hub.requests.clear()
    notes = machine.download(hub.url, HF_HUB_OFFLINE="1")[3]
    assert notes == f"{ID}: HF_HUB_OFFLINE is set; used the cached copy"
    assert hub.requests == []

    hub.status = 503
    assert "out of order (status 503); used the cached copy" in machine.download(hub.url)[3]


@pytest.mark.parametrize("offline", [False, True])
def test_unreachable_and_nothing_cached_is_one_clear_line(machine, offline):
    started = time.monotonic()
    kind, text = machine.download(NOWHERE, **({"HF_HUB_OFFLINE": "1"} if offline else {}))
    assert kind == "HubUnreachable"
    for remedy in ("--weights bundled", "--weights FILE", "--weights none", "try again"):
        assert remedy in text
    assert "\n" not in text
    assert time.monotonic() - started < 20  # hf_hub_download alone would try for 23 s and more


@pytest.mark.parametrize("revision", ["v1", COMMIT])
def test_a_revision(hub, machine, revision):
    assert machine.download(hub.url, f"{ID}@{revision}")[2] == COMMIT
    assert f"HEAD /{ID}/resolve/{revision}/config.json" in hub.requests
    assert machine.download(NOWHERE, f"{ID}@{revision}")[0] == "ok"
    assert machine.download(NOWHERE, f"{ID}@other")[0] == "HubUnreachable"


def test_what_the_hub_does_not_give(hub, machine):
    absent = "does not exist on the hub, or is private (status {})"
    cases = {
        "timm/other": absent.format(401),
        "a--b/..": "is not a hub id",
        f"{ID}@v9": "the hub has no such revision",
        "fault/401": absent.format(401),
        "fault/403": absent.format(403),
        "fault/404": absent.format(404),
        "fault/403-GatedRepo": "is gated; accept its terms",
    }
    lines = machine.run(DOWNLOAD, *cases, HF_ENDPOINT=hub.url, join=False)
    assert len(lines) == len(cases)
    for line, (hub_id, said) in zip(lines, cases.items(), strict=True):
        assert line.startswith(f"WeightsError|{hub_id}: {said}")


@pytest.mark.parametrize(("fault", "said"), [("short", "cut short"), ("tampered", "tampered")])
def test_a_damaged_download_is_never_used(hub, machine, fault, said):
    hub.fault = fault
    kind, text = machine.download(hub.url)
    assert kind == "WeightsError"
    assert said in text
    assert "model.safetensors" in text
    assert machine.download(NOWHERE)[0] == "HubUnreachable"  # no copy was kept

    hub.fault = ""
    kind, path, *_ = machine.download(hub.url)
    assert kind == "ok"
    assert Path(path).read_bytes() == hub.files["model.safetensors"]


def test_a_server_that_hangs_up_half_way_is_asked_again(hub, machine):
    hub.hangups = 1
    kind, path, *_ = machine.download(hub.url)
    assert kind == "ok"
    assert Path(path).read_bytes() == hub.files["model.safetensors"]
    assert hub.requests.count("GET cdn/model.safetensors") == 2


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_cached_copy_that_was_changed_is_found_offline(hub, machine, name):
    path = Path(machine.download(hub.url)[1]).with_name(name)
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.resolve().write_bytes(content)
    kind, text = machine.download(NOWHERE)
    assert kind == "WeightsError"
    assert f"the copy of {name} is not what the hub states" in text
    assert machine.download(NOWHERE)[0] == "HubUnreachable"
    assert machine.download(hub.url)[0] == "ok"


def test_the_pickle_is_taken_only_where_there_is_no_safetensors(hub, machine):
    hub.files["pytorch_model.bin"] = b"the pickle"
    assert machine.download(hub.url)[1].endswith("model.safetensors")
    del hub.files["model.safetensors"]
    other = Machine(machine.home / "other")
    assert other.download(hub.url)[1].endswith("pytorch_model.bin")
    assert other.download(NOWHERE)[1].endswith("pytorch_model.bin")
    del hub.files["pytorch_model.bin"]
    kind, text = Machine(machine.home / "third").download(hub.url)
    assert kind == "WeightsError"
    assert "has no model.safetensors or pytorch_model.bin" in text


@pytest.mark.parametrize(
    ("content", "said"), [(b"{oops", "cannot be read"), (b"[1]", "not a JSON object")]
)
def test_a_config_that_is_no_config(hub, machine, content, said):
    hub.files["config.json"] = content
    kind, text = machine.download(hub.url)
    assert kind == "WeightsError"
    assert said in text


def test_from_hub_id_to_network(hub, machine):
    torch.manual_seed(0)
    model = ResNet(variant("resnet18").replace(classes=3))
    content = save(disk_state(model))
    hub.files["model.safetensors"] = content
    one, two = machine.run(CREATE, ID, " ", "resnet50", HF_ENDPOINT=hub.url, join=False)
    assert one.split("|") == [
        f"hub:{ID}@{COMMIT}",
        hashlib.sha256(content).hexdigest(),
        "resnet18",
        "('a', 'b', 'c')",
        "235",
        "bicubic",
        str(model.head.fc.weight.detach().sum().item()),
        "0",
    ]
    assert two.startswith(f"WeightsError|hub:{ID}@{COMMIT} holds resnet18, not resnet50")


def test_auto_is_never_random_by_surprise(machine):
    kind, text = machine.run(CREATE, "auto", "resnet18", HF_ENDPOINT=NOWHERE)
    assert kind == "HubUnreachable"
    assert text.startswith("timm/resnet18.a1_in1k: ")
