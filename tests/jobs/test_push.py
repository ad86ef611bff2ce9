"""``plusx push`` against a server on this machine that speaks the hub's protocol for uploads.

Commands run in processes of their own with HF_ENDPOINT, HF_HOME and HF_TOKEN set, as a user's
would; several in one process, to save time.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plusx.data import Preprocessing
from plusx.decide import Decision, Unknown
from plusx.jobs.push import public_config
from plusx.model import ResNet, ResNetSpec
from plusx.weights import load_artifact, save_artifact, write_decision

TOKEN = "hf_" + "a" * 34
REPO = "me/photos"
NOWHERE = "http://127.0.0.1:9"  # the discard port: connections are refused
SPEC = ResNetSpec("resnet18ish", "basic", (1, 1), (8, 16), stem_width=8, classes=2, image_size=32)

COMMANDS = """
import contextlib, io, json, os, sys
from plusx.__main__ import main
for words in json.loads(sys.argv[1]):
    while "=" in words[0]:
        name, _, os.environ[name] = words.pop(0).partition("=")
    sys.argv = ["plusx", *words]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    print(json.dumps([code, out.getvalue(), err.getvalue()]))
"""


@dataclass
class Repo:
    """Branches, each a line of (commit, files)."""

    private: bool = False
    branches: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        line = self.branches.setdefault(branch, [])
        files = {**(line[-1][1] if line else {}), **files}
        oid = hashlib.sha1(f"{branch}{len(line)}".encode()).hexdigest()
        line.append((oid, files))
        return oid


@dataclass
class Hub:
    """The server; ``refuse`` maps a part of a request to the status it gets instead."""

    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, int] = field(default_factory=dict)
    hangups: int = 0
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    url: str = ""

    def files(self, branch: str = "main") -> dict[str, bytes]:
        return self.repos[REPO].branches[branch][-1][1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.handle_any()

    def do_HEAD(self) -> None:
        self.handle_any()

    def do_POST(self) -> None:
        self.handle_any()

    def do_PUT(self) -> None:
        self.handle_any()

    def answer(self, status: int, content: Any = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def handle_any(self) -> None:
        hub = self.hub
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = f"{self.command} {self.path}"
        hub.requests.append(said)
        if "lfs/" in self.path and self.command == "PUT" and hub.hangups:
            hub.hangups -= 1
            self.close_connection = True
            self.connection.close()
            return
        if status := next((s for part, s in hub.refuse.items() if part in said), 0):
            self.answer(status, {"error": "refused"})
            return
        token = self.headers.get("Authorization")
        if token not in (None, f"Bearer {TOKEN}"):
            self.answer(401, X_Error_Message="Invalid credentials in Authorization header")
            return
        path = self.path.partition("?")[0]
        for pattern, action in ROUTES:
            if found := re.fullmatch(pattern, path):
                if self.command in ("POST", "PUT") and token is None and "/lfs/" not in path:
                    self.answer(401)
                    return
                action(self, body, *found.groups())
                return
        self.answer(404)


def info(to: Handler, body: bytes, name: str, branch: str | None) -> None:
    repo = to.hub.repos.get(name)
    if repo is None or (repo.private and not to.headers.get("Authorization")):
        to.answer(404, X_Error_Code="RepoNotFound")
        return
    line = repo.branches.get(branch or "main")
    if line is None and branch is None:
        line = []  # a repository without a commit
    if line is None:
        to.answer(404, X_Error_Code="RevisionNotFound")
        return
    commit, files = line[-1] if line else ("0" * 40, {})
    siblings = [
        {"rfilename": path, "size": len(content), "blobId": git_hash(content),
         **({"lfs": {"sha256": sha(content), "size": len(content), "pointerSize": 130}}
            if path.endswith("safetensors") else {})}
        for path, content in files.items()
    ]  # fmt: skip
    to.answer(200, {"id": name, "sha": commit, "private": repo.private, "siblings": siblings})


def create(to: Handler, body: bytes) -> None:
    asked = json.loads(body)
    name = f"{asked['organization']}/{asked['name']}"
    private = asked.get("private") or asked.get("visibility") == "private"
    to.hub.repos[name] = Repo(bool(private))
    to.hub.repos[name].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
    to.answer(200, {"url": f"{to.hub.url}/{name}", "name": name})


def branch(to: Handler, body: bytes, name: str, branch: str) -> None:
    to.hub.repos[name].commit(branch, {})
    to.answer(200, {})


def valid(to: Handler, body: bytes) -> None:
    to.answer(200, {"warnings": [{"message": "a remark"}], "errors": []})


def preupload(to: Handler, body: bytes, name: str, branch: str) -> None:
    files = [
        {"path": one["path"], "shouldIgnore": False,
         "uploadMode": "lfs" if one["path"].endswith("safetensors") else "regular"}
        for one in json.loads(body)["files"]
    ]  # fmt: skip
    to.answer(200, {"files": files})


def batch(to: Handler, body: bytes, name: str) -> None:
    objects = [
        {"oid": one["oid"], "size": one["size"],
         "actions": {"upload": {"href": f"{to.hub.url}/lfs/{one['oid']}"}}}
        for one in json.loads(body)["objects"]
    ]  # fmt: skip
    to.answer(200, {"transfer": "basic", "objects": objects})


def stored(to: Handler, body: bytes, oid: str) -> None:
    if to.command == "PUT":
        to.hub.objects[oid] = body
        to.answer(200 if sha(body) == oid else 400)
    else:
        to.answer(200, to.hub.objects[oid], ETag='"cdn"')


def commit(to: Handler, body: bytes, name: str, branch: str) -> None:
    files: dict[str, bytes] = {}
    line = to.hub.repos[name].branches[branch]
    for row in map(json.loads, body.splitlines()):
        value = row["value"]
        if row["key"] == "header":
            to.hub.messages.append(value["summary"])
            if value.get("parentCommit") not in (None, line[-1][0]):
                to.answer(412, {"error": "A commit has happened since."})
                return
        elif row["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        else:
            files[value["path"]] = to.hub.objects[value["oid"]]
    oid = to.hub.repos[name].commit(branch, files)
    to.answer(200, {"commitUrl": f"{to.hub.url}/{name}/commit/{oid}", "commitOid": oid})


def resolve(to: Handler, body: bytes, name: str, revision: str, path: str) -> None:
    """What a download asks for."""
    line = to.hub.repos[name].branches["main"]
    commit, files = line[-1]
    if path not in files:
        to.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        return
    content = files[path]
    if path.endswith("safetensors"):
        there = to.hub.url.replace("127.0.0.1", "localhost")  # another host, as the hub's CDN is
        to.answer(302, Location=f"{there}/lfs/{sha(content)}", X_Repo_Commit=commit,
                  X_Linked_Etag=f'"{sha(content)}"', X_Linked_Size=str(len(content)))  # fmt: skip
    else:
        to.answer(200, content, ETag=f'"{git_hash(content)}"', X_Repo_Commit=commit)


ROUTES: list[tuple[str, Callable[..., None]]] = [
    ("/api/repos/create", create),
    ("/api/validate-yaml", valid),
    (r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", info),
    (r"/api/models/([^/]+/[^/]+)/branch/([^/]+)", branch),
    (r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", preupload),
    (r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", commit),
    (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", batch),
    (r"/lfs/(\w+)", stored),
    (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", resolve),
]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@pytest.fixture(name="hub")
def hub_fixture() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Bound", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


@pytest.fixture
def plusx(hub: Hub, tmp_path: Path) -> Callable[..., list[Said]]:
    """Runs commands, given as lists of words, in one process of their own."""

    def call(*commands: list[str], endpoint: str | None = None, token: str = TOKEN) -> list[Said]:
        env = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        env |= {"HF_ENDPOINT": endpoint or hub.url, "HF_HOME": str(tmp_path / "hf"),
                "HF_HUB_DISABLE_XET": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
        env |= {"HF_TOKEN": token} if token else {}
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", COMMANDS, json.dumps(commands)],
            capture_output=True, text=True, env=env, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return [Said(*json.loads(line)) for line in done.stdout.splitlines()]

    return call


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    """Makes a model folder; gives its path."""

    def artifact(name: str = "run", seed: int = 0, data: str = "/home/me/patients/photos") -> str:
        torch.manual_seed(seed)
        save_artifact(
            tmp_path / name / "model", ResNet(SPEC), classes=("ant", "bee"),
            preprocessing=Preprocessing.for_size(32), card="---\nlicense: unknown\n---\n# card\n",
            provenance={"data": data, "weights": "file:me/patients/x.pth", "seed": 3},
        )  # fmt: skip
        (tmp_path / name / "report.html").write_text("thumbnails of patients")
        return str(tmp_path / name)

    return artifact


def test_pushed_and_read_back(hub: Hub, plusx: Callable[..., list[Said]], make: Any) -> None:
    run = make()
    tried, pushed, again = plusx(
        ["push", run, REPO, "--dry-run"],
        ["push", run, REPO, "--private", "--message", "the first"],
        ["push", run, REPO, "--json"],
    )
    assert tried.code == 0, tried
    assert "nothing was sent; to me/photos (public, to be made)" in tried.out
    assert re.search(r"model\.safetensors +[\d,]+ bytes +new", tried.out)
    assert (pushed.code, pushed.err) == (0, "")
    assert f"pushed:  {hub.url}/me/photos/commit/" in pushed.out
    assert hub.repos[REPO].private
    assert hub.messages[0] == "the first"
    assert set(hub.files()) == {".gitattributes", "model.safetensors", "config.json", "README.md"}
    for content in hub.files().values():
        assert b"patients" not in content  # neither thumbnails nor folders
    sent = json.loads(hub.files()["config.json"])
    assert sent["plusx"]["provenance"] == {"data": "photos", "weights": "file:x.pth", "seed": 3}

    found = json.loads(again.out)  # the same model once more is no surprise
    assert {file["fate"] for file in found["files"]} == {"unchanged"}
    assert found["url"]

    got = plusx(["import", REPO, "--out", f"{run}-back"])[0]
    assert got.code == 0, got.err
    ours, theirs = load_artifact(Path(run)), load_artifact(Path(f"{run}-back"))
    assert theirs.classes == ("ant", "bee")
    x = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(ours.model(x), theirs.model(x))


def test_another_model_is_not_overwritten_by_surprise(
    hub: Hub, plusx: Callable[..., list[Said]], make: Any
) -> None:
    first, second = make("one", 0), make("two", 1)
    hub.repos["me/other"] = Repo()
    hub.repos["me/other"].commit("main", {"README.md": b"by hand", "pytorch_model.bin": b"x"})
    said = plusx(
        ["push", first, REPO],
        ["push", second, REPO],
        ["push", second, "me/other", "--dry-run"],
        ["push", second, REPO, "--private"],
        ["push", second, REPO, "--overwrite", "--dry-run"],
        ["push", second, REPO, "--revision", "trial"],
        ["push", second, REPO, "--overwrite"],
    )
    assert [one.code for one in said] == [0, 2, 2, 2, 0, 0, 0]
    for one in said[1:4]:
        assert one.out == ""
        assert one.err.count("\n") == 1
    assert "error: me/photos: holds another model" in said[1].err
    assert "--overwrite to replace model.safetensors" in said[1].err
    assert "(README.md, pytorch_model.bin)" in said[2].err
    assert "me/photos exists and is public" in said[3].err
    assert re.search(r"model\.safetensors.+replaces the one there", said[4].out)
    assert re.search(r"README\.md.+unchanged", said[4].out)
    line = [files for _, files in hub.repos[REPO].branches["main"]]
    digests = [load_artifact(Path(one)).sha256 for one in (first, second)]
    assert [sha(files["model.safetensors"]) for files in line[1:]] == digests
    assert sha(hub.files("trial")["model.safetensors"]) == digests[1]


def test_what_goes_wrong_is_one_line(
    hub: Hub, plusx: Callable[..., list[Said]], make: Any, tmp_path: Path
) -> None:
    run, other = make(), make("other", 1)
    for name in ("me/r403", "me/r412", "me/r400"):
        hub.repos[name] = Repo()
        hub.repos[name].commit("main", {})
    hub.refuse = {
        "me/r403/preupload": 403,
        "me/r412/commit": 412,
        f"PUT /lfs/{load_artifact(Path(other)).sha256}": 400,
    }
    hub.hangups = 1  # a line that breaks once is tried again
    cases = {
        f"HF_TOKEN={TOKEN} push {run} a//b": "'a//b' is not a name on the hub; write it as USER",
        f"push {tmp_path} {REPO}": "no model there",
        f"push {run} me/r403": "the token may not write there (status 403)",
        f"push {run} me/r412": "it was changed by someone else meanwhile (status 412)",
        f"push {other} me/r400": "the upload broke off",
        f"HF_TOKEN=hf_{'b' * 34} push {run} {REPO}": "the hub does not accept the token (status 40",
        f"HF_TOKEN= push {run} {REPO}": "not logged in to the hub: run hf auth login, or set HF_TO",
    }
    said = plusx(*(words.split() for words in cases))
    said += plusx(["push", run, REPO], endpoint=NOWHERE)
    for one, text in zip(said, [*cases.values(), f"{NOWHERE} cannot be reached"], strict=True):
        assert one.code == 2, one
        assert one.out == ""
        assert text in one.err
        assert one.err.count("\n") == 1
        assert "hf_" not in one.err
    assert hub.hangups == 0
    assert REPO not in hub.repos
    for repo in hub.repos.values():
        assert repo.branches["main"][-1][1] == {}


def test_a_damaged_model_is_not_sent(hub: Hub, make: Any, command: Callable[..., Any]) -> None:
    run = make()
    weights = Path(run, "model", "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    assert "is not the file that config.json was written for" in command("push", run, REPO).error
    assert hub.requests == []


def test_the_features_that_unknown_images_need_are_sent(
    hub: Hub, plusx: Callable[..., list[Said]], make: Any, command: Callable[..., Any]
) -> None:
    run = make()
    bank = np.eye(4, SPEC.feature_channels, dtype=np.float16)
    write_decision(Path(run, "model"), Decision(unknown=Unknown(0.3, 0.05, 2, bank)))
    pushed, again = plusx(["push", run, REPO], ["push", run, REPO, "--json"])
    assert pushed.code == 0, pushed
    features = Path(run, "model", "decision.safetensors")
    assert hub.files()["decision.safetensors"] == features.read_bytes()
    assert {file["fate"] for file in json.loads(again.out)["files"]} == {"unchanged"}
    features.unlink()
    assert "decision.safetensors: cannot be read" in command("push", run, REPO).error


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/home/me/x", "x"),
        ("C:\\me\\x", "x"),
        ("../data/x", "x"),
        ("file:me/run/model.safetensors", "file:model.safetensors"),
        ("hub:timm/resnet18.a1_in1k@abc", "hub:timm/resnet18.a1_in1k@abc"),
        ("bundled:plusx_small", "bundled:plusx_small"),
        ("imported", "imported"),
        ("all", "all"),
        (["/a/b", 3], ["b", 3]),
        ({"more": "~/x/y"}, {"more": "y"}),
    ],
)
def test_of_a_path_only_the_last_part_is_sent(value: Any, kept: Any) -> None:
    sent = public_config({"plusx": {"provenance": {"key": value}}, "architecture": "x"})
    assert sent == {"plusx": {"provenance": {"key": kept}}, "architecture": "x"}
