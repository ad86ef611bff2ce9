"""What a server refuses, and that it goes on afterwards."""

from __future__ import annotations

import io
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


def queued(server: Any) -> float:
    text = server.ask("GET", "/metrics").content.decode()
    return float(re.findall(r"^plusx_queue_images (\S+)", text, re.M)[0])


def established(local: str, remote: str) -> bool:
    """By /proc, seen from the end whose port is ``local``."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()]
    ends = [row[1:4] for row in rows[1:]]
    return any(a.endswith(local) and b.endswith(remote) and state == "01" for a, b, state in ends)


def works(server: Any, pictures: list[Path]) -> bool:
    return bool(server.predict(pictures[0]).status == 200)


def test_large_bodies_and_many_images(server: Any, pictures: list[Path]) -> None:
    assert server.ask("POST", "/v1/predict", b"x" * 2**21, Content_Type="image/png").status == 413
    answer = server.predict(*[pictures[0]] * 9)
    assert (answer.status, answer.code) == (413, "too_many_images")
    assert works(server, pictures)


def test_a_pixel_bomb_is_an_error_of_its_item(server: Any, pictures: list[Path]) -> None:
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "PNG")
    chunk = b"IDAT" + zlib.compress(b"\0" * 10_000_000)
    answer = server.predict(bomb.getvalue(), pictures[0], b"\x89PNG\r\n\x1a\n" + chunk)
    first, second, third = answer.json["results"]
    assert "pixels" in first["error"]["message"]
    assert "error" not in second
    assert third["error"]["code"] == "unreadable"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [("text/plain", b"hello", 415), ("application/json", b"{", 400),
     ("application/json", b'{"images": [1]}', 400), ("application/json", b'{"images": ["%"]}', 400),
     ("application/json", b"[" * 100_000, 400), ("image/png", b"", 400),
     ("multipart/form-data", b"abc", 400), ("multipart/form-data; boundary=b", b"abc", 400),
     ("multipart/form-data; boundary=b", b"--b\r\n\r\n", 400),
     ("multipart/form-data; boundary=b",
      b'--b\r\nContent-Disposition: form-data; name="other"\r\n\r\nx\r\n--b--\r\n', 400)],
)  # fmt: skip
def test_damaged_bodies(server: Any, kind: str, body: bytes, status: int) -> None:
    answer = server.ask("POST", "/v1/predict", body, Content_Type=kind)
    assert answer.status == status
    assert answer.json["error"]["request_id"]


def test_compressed_bodies_are_not_unpacked(server: Any) -> None:
    bomb = zlib.compress(b"\0" * 10_000_000)
    answer = server.ask("POST", "/v1/predict", bomb, Content_Type="image/png",
                        Content_Encoding="deflate")  # fmt: skip
    assert answer.status == 415


def test_mutated_files_never_end_the_server(server: Any, pictures: list[Path]) -> None:
    rng = random.Random(0)
    image = Image.open(pictures[0])
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        file = io.BytesIO()
        image.save(file, kind)
        damaged = []
        for _ in range(8):
            content = bytearray(file.getvalue())
            for _ in range(rng.randint(1, 20)):
                content[rng.randrange(len(content))] = rng.randrange(256)
            damaged.append(bytes(content[: rng.randint(1, len(content))]))
        assert server.predict(*damaged).status in (200, 422)
    assert works(server, pictures)


def test_lying_lengths_and_header_floods(server: Any, pictures: list[Path]) -> None:
    start = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
    began = time.monotonic()
    slow = server.raw(start + b"Content-Length: 100\r\n\r\nshort")
    assert slow.startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 8
    assert server.raw(start + b"Content-Length: -5\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert server.raw(start + b"Content-Length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413")
    flood = b"".join(b"X-%d: y\r\n" % i for i in range(100_000))
    assert server.raw(b"GET / HTTP/1.1\r\nHost: localhost\r\n" + flood + b"\r\n").startswith(
        (b"HTTP/1.1 400", b"HTTP/1.1 431")
    )
    assert server.raw(b"\0\xff rubbish\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert works(server, pictures)


def test_a_thousand_idle_connections_are_closed_and_block_nobody(
    start_server: Any, finished: Any, pictures: list[Path]
) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))  # as systems have it; it is inherited
    try:
        server = start_server(finished.path, "--threads", 1, "--max-header-s", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(1000)]
    for one in idle[:300]:
        one.sendall(b"GET / HTTP/1.1\r\nHost: loc")  # and then nothing
    assert works(server, pictures)
    time.sleep(3)
    closed = 0
    for one in idle:
        one.settimeout(0.5)
        try:
            closed += one.recv(1) == b""
        except ConnectionResetError:
            closed += 1
        one.close()
    assert closed == len(idle)


def test_a_full_queue_says_when_to_come_again(
    start_server: Any, finished: Any, pictures: list[Path]
) -> None:
    small = start_server(finished.path, "--max-queue", 4, "--threads", 1, "--max-wait-ms", 3000)
    never = small.predict(*pictures[:5])
    assert (never.status, never.code) == (413, "too_many_images")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(small.predict, *pictures[:3])  # waits for others to join its batch
        small.until(lambda: queued(small) == 3)
        refused = small.predict(*pictures[:2])
        assert (refused.status, refused.code) == (503, "busy")
        assert refused.headers["retry-after"] == "1"
        assert first.result().status == 200
    with small.asking(*pictures[:4]):
        small.until(lambda: queued(small) == 4)
    small.until(lambda: queued(small) == 0, seconds=2)  # who has gone holds no place
    small.until(lambda: 499 in [one["status"] for one in small.events("request")])
    assert [one["status"] for one in small.events("request")].count(499) == 1


def test_hosts_origins_and_keys(
    start_server: Any, finished: Any, pictures: list[Path], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# of a test\n" + "k" * 20 + "\n")
    closed = start_server(finished.path, "--api-key-file", keys, "--threads", 1,
                          "--cors-origin", "https://good.example")  # fmt: skip
    assert closed.predict(pictures[0]).status == 401
    assert closed.predict(pictures[0], Authorization="Bearer " + "x" * 20).status == 401
    assert closed.predict(pictures[0], Authorization="Bearer " + "k" * 20).status == 200
    assert closed.predict(pictures[0], X_API_Key="k" * 20).status == 200
    assert closed.ask("GET", "/metrics").status == 401
    assert closed.ask("GET", "/healthz").status == 200
    assert closed.ask("GET", "/healthz", Host="evil.example").status == 421
    good = closed.ask("GET", "/healthz", Origin="https://good.example")
    assert good.headers["access-control-allow-origin"] == "https://good.example"
    preflight = closed.ask("OPTIONS", "/v1/predict", Origin="https://good.example",
                           Access_Control_Request_Method="POST")  # fmt: skip
    assert preflight.status == 204
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    bad = closed.ask("GET", "/healthz", Origin="https://bad.example")
    assert "access-control-allow-origin" not in bad.headers
    assert "kkkk" not in closed.log.read_text()


def test_a_full_disk_for_the_log_stops_no_answer(
    start_server: Any, finished: Any, pictures: list[Path]
) -> None:
    full = start_server(finished.path, "--log-file", "/dev/full", "--threads", 1)
    assert works(full, pictures)
    assert "request lines are lost" in full.log.read_text()


def test_who_never_reads_the_answers_is_cut_off(server: Any, pictures: list[Path]) -> None:
    """Many answers, asked for at once on a connection that takes none."""
    with socket.socket() as bare:
        bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        bare.connect(("127.0.0.1", server.port))
        bare.settimeout(20)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with suppress(OSError):  # the server stops reading, too
            for _ in range(3000):
                bare.send(asked, socket.MSG_DONTWAIT)
        time.sleep(1)
        ends = (f":{server.port:04X}", f":{bare.getsockname()[1]:04X}")
        server.until(lambda: not established(*ends))
    assert works(server, pictures)


def test_many_lists_are_refused_before_they_fill_the_memory(server: Any) -> None:
    bomb = b"[" + b"[]," * 300_000 + b"[]]"
    answer = server.ask("POST", "/v1/predict", bomb, Content_Type="application/json")
    assert (answer.status, answer.code) == (400, "json")


def test_a_decoder_that_is_killed_or_hangs_costs_its_image(
    server: Any, pictures: list[Path]
) -> None:
    file = io.BytesIO()
    Image.open(pictures[0]).save(file, "TIFF")
    assert server.predict(file.getvalue()).status == 200
    for end, said in ((signal.SIGKILL, "killed"), (signal.SIGSTOP, "longer than 1.5 s")):
        (decoder,) = server.children(b"isolated")
        os.kill(decoder, end)
        bad, good = server.predict(file.getvalue(), pictures[0]).json["results"]
        assert said in bad["error"]["message"]
        assert good["label"]
        server.until(lambda: server.predict(file.getvalue()).status == 200)


def test_many_at_once_are_all_answered(server: Any, pictures: list[Path]) -> None:
    found: list[int] = []

    def ask() -> None:
        for one in pictures[:6]:
            found.append(server.predict(one).status)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert found == [200] * 48


def test_requests_made_of_the_description(server: Any, tmp_path: Path) -> None:
    """schemathesis makes them up; no answer may be a fault or differ from what is described."""
    pytest.importorskip("schemathesis")
    checks = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
              "response_schema_conformance")  # fmt: skip
    asked = [part for name in checks for part in ("-c", name)]
    asked += ["--seed", "1", "--max-examples", "8", "--phases", "coverage,fuzzing"]
    run = "from schemathesis.cli import schemathesis; schemathesis()"
    found = subprocess.run(
        [sys.executable, "-c", run, "run", f"{server.url}/openapi.json", *asked],
        capture_output=True, text=True, timeout=300, cwd=tmp_path,  # it writes where it runs
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
