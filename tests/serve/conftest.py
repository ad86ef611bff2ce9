"""A real server process, and what talks to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from plusx import Run


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)

    @property
    def code(self) -> str:
        """Why a request was refused."""
        return str(self.json["error"]["code"])


@dataclass
class Server:
    """A ``plusx serve`` process."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    lines: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(connection):
            connection.request(method, path, body, named)
            with connection.getresponse() as found:
                told = {name.lower(): value for name, value in found.getheaders()}
                return Answer(found.status, told, found.read())

    def predict(self, *images: bytes | Path, query: str = "", **headers: str) -> Answer:
        """Images as multipart."""
        body, kind = multipart(*images)
        return self.ask("POST", f"/v1/predict{query}", body, Content_Type=kind, **headers)

    def asking(self, *images: bytes | Path) -> socket.socket:
        """A connection on which such a request was sent, and nothing read."""
        body, kind = multipart(*images)
        head = f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        bare = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        bare.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return bare

    def raw(self, data: bytes, *, wait: float = 10) -> bytes:
        """Bytes on a bare connection -> all that comes back until it is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as bare:
            bare.sendall(data)
            found = b""
            try:
                while part := bare.recv(65536):
                    found += part
            except (TimeoutError, ConnectionResetError):
                pass
            return found

    def events(self, name: str) -> list[dict[str, Any]]:
        """Its log lines of one kind; that of a request comes after its answer."""
        text = self.log.read_text(encoding="utf-8").rpartition("\n")[0]  # whole lines
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in found if line["event"] == name]

    def until(self, fine: Callable[[], bool], *, seconds: float = 20) -> None:
        """Wait for something that must come."""
        end = time.monotonic() + seconds
        while not fine():
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.05)

    def children(self, kind: bytes) -> list[int]:
        """Processes that it started, by /proc, whose command line holds ``kind``."""
        found = []
        for folder in Path("/proc").iterdir():
            try:
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                if parent == str(self.process.pid) and kind in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def multipart(*images: bytes | Path) -> tuple[bytes, str]:
    """A body and its Content-Type."""
    parts = []
    for number, image in enumerate(images):
        name = image.name if isinstance(image, Path) else f"{number}.bin"
        content = image.read_bytes() if isinstance(image, Path) else image
        head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        parts += [head.encode(), content, b"\r\n"]
    return b"".join([*parts, b"--b--\r\n"]), "multipart/form-data; boundary=b"


Start = Callable[..., Server]


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers on free ports; all are stopped in the end."""
    pytest.importorskip("fastapi", reason="extra 'serve' absent")
    running: list[Server] = []

    def start(*arguments: object, **environment: str) -> Server:
        log = tmp_path_factory.mktemp("serve") / "log"
        command = [sys.executable, "-m", "plusx", "serve", *map(str, arguments), "--port", "0"]
        with log.open("w") as file:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=file, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"} | environment,
            )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving "), log.read_text()
        server = Server(process, int(line.partition("127.0.0.1:")[2].split()[0]), log)
        running.append(server)
        server.until(lambda: server.ask("GET", "/readyz").status == 200)
        return server

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()
        if server.process.stdout is not None:
            server.process.stdout.close()


@pytest.fixture(scope="session")
def server(start_server: Start, finished: Run) -> Server:
    """One that serves the finished run with small limits; tests that end a server start another."""
    return start_server(
        finished.path, "--threads", 1, "--max-body-mib", 1, "--max-images", 8,
        "--max-pixels", 1_000_000, "--max-request-s", 3, "--max-header-s", 1,
    )  # fmt: skip


@pytest.fixture(scope="session")
def pictures(photos: Path) -> list[Path]:
    """Sixteen good files."""
    return sorted((photos / "val").rglob("*.png"))[:16]
