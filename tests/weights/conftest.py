"""What the tests of the weights room share: a small net, a hub on this machine.

The hub speaks the Hugging Face hub's download protocol, with faults on demand: small files are
answered directly with git's blob hash as ETag; large ones (LFS) are redirected to a second server,
as the hub redirects to its CDN, with the SHA-256 in X-Linked-Etag.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import torch

from plusx.model import ResNet, variant


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Many small runs: waiting threads would cost more than they give."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(randomise):
    """A CIFAR ResNet-8 of 4 classes with random weights and norms: quick, with every part."""
    torch.manual_seed(7)
    return randomise(ResNet(variant("resnet8_cifar_b").replace(classes=4)))


@dataclass
class Hub:
    """What the server holds and how it misbehaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    commit: str = "0123456789abcdef0123456789abcdef01234567"
    repo: str = "timm/resnet18.test"
    lfs: tuple[str, ...] = ("model.safetensors", "pytorch_model.bin")
    fault: str = ""  # of the large file: short | tampered | hangup
    status: int = 0  # of every answer, if not 0; else repo "fault/STATUS-CODE" has its own
    hangups: int = 0  # how many more times the large file breaks off half way
    requests: list[str] = field(default_factory=list)
    url: str = ""
    cdn_url: str = ""
    servers: list[ThreadingHTTPServer] = field(default_factory=list)

    def start(self) -> None:
        for handler, name in ((_HubHandler, "url"), (_CdnHandler, "cdn_url")):
            server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
            server.hub = self  # type: ignore[attr-defined]
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            setattr(self, name, f"http://127.0.0.1:{server.server_address[1]}")
            self.servers.append(server)

    def stop(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.servers.clear()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        raise NotImplementedError

    def send(self, status: int, headers: dict[str, str], content: bytes, body: bool) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


class _HubHandler(_Handler):
    def answer(self, body: bool) -> None:
        hub = self.hub
        hub.requests.append(f"{self.command} {self.path}")
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
        fault = re.match(r"/fault/(\d+)-?(\w*)/", self.path)
        if hub.status:
            self.send(hub.status, {}, b"", body)
        elif fault:
            self.send(int(fault[1]), {"X-Error-Code": fault[2]}, b"", body)
        elif found is None or found[1] != hub.repo:
            self.send(401, {"X-Error-Message": "Invalid username or password."}, b"", body)
        elif found[2] not in ("main", "v1", hub.commit):
            self.send(404, {"X-Error-Code": "RevisionNotFound"}, b"", body)
        elif found[3] not in hub.files:
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit}
            self.send(404, headers, b"", body)
        else:
            self._file(found[3], body)

    def _file(self, name: str, body: bool) -> None:
        content = self.hub.files[name]
        headers = {"X-Repo-Commit": self.hub.commit, "Accept-Ranges": "bytes"}
        if name in self.hub.lfs:
            digest = hashlib.sha256(content).hexdigest()
            headers |= {
                "Location": f"{self.hub.cdn_url}/{name}",
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(content)),
                "ETag": '"0000000000000000000000000000000000000000"',
            }
            self.send(302, headers, b"", body)
        else:
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self.send(200, headers | {"ETag": f'"{blob}"'}, content, body)


class _CdnHandler(_Handler):
    def answer(self, body: bool) -> None:
        hub = self.hub
        hub.requests.append(f"{self.command} cdn{self.path}")
        content = hub.files[self.path[1:]]
        if hub.fault == "short":
            content = content[: len(content) // 2]
        elif hub.fault == "tampered":
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        headers = {"ETag": '"cdn"'}
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        if hub.hangups > 0:
            hub.hangups -= 1
            headers["Content-Length"] = str(len(rest))
            self.send(206 if wanted else 200, headers, rest[: len(rest) // 2], body)
            self.close_connection = True
        else:
            self.send(206 if wanted else 200, headers, rest, body)


@pytest.fixture(name="hub")
def hub_fixture():
    """A running hub without any files."""
    server = Hub()
    server.start()
    yield server
    server.stop()
