"""A server's life: reload, the end of a worker, a stop under load, and what it will not start."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_a_changed_model_is_served_and_a_broken_one_is_not(
    start_server: Any, finished: Any, tiny_weights: Path, pictures: list[Path], tmp_path: Path
) -> None:
    place = tmp_path / "model"
    shutil.copytree(finished.model_path, place)
    server = start_server(f"one={place}", f"two={finished.path}", "--watch", "--threads", 1)
    assert len(server.ask("GET", "/v1/model?name=one").json["classes"]) == 2
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    server.until(lambda: bool(server.events("reload_failed")))
    assert server.predict(pictures[0], query="?model=one").status == 200
    assert server.ask("GET", "/v1/model?name=one").json["trouble"]
    fresh = tmp_path / "fresh"
    shutil.copytree(tiny_weights, fresh)
    place.rename(tmp_path / "old")
    fresh.rename(place)
    server.until(lambda: len(server.ask("GET", "/v1/model?name=one").json["classes"]) == 5)
    assert server.ask("GET", "/v1/model?name=one").json["trouble"] is None
    assert server.predict(pictures[0], query="?model=two").json["model"] == "two"


def test_a_stop_under_load_loses_no_accepted_request(
    start_server: Any, finished: Any, pictures: list[Path]
) -> None:
    server = start_server(finished.path, "--threads", 1)
    answered, cut = [], []

    def ask() -> None:
        while not cut:
            try:
                answered.append(server.predict(*pictures[:4]).status)
            except ConnectionRefusedError:
                return
            except (ConnectionError, OSError) as error:
                cut.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    time.sleep(1)
    assert server.stop() == 0
    for one in threads:
        one.join()
    # A connection that the kernel had taken, but the server had not, may be reset.
    accepted = [one for one in server.events("request") if one["path"] == "/v1/predict"]
    assert len(answered) == len(accepted)
    assert set(answered) == {200}


def test_a_killed_worker_is_replaced(
    start_server: Any, finished: Any, pictures: list[Path]
) -> None:
    server = start_server(finished.path, "--workers", 2)
    server.until(lambda: len(server.children(b"spawn_main")) == 2)
    server.until(lambda: len(server.events("started")) == 2)
    os.kill(server.children(b"spawn_main")[0], signal.SIGKILL)
    server.until(lambda: len(server.events("started")) == 3, seconds=60)
    assert all(server.predict(pictures[i]).status == 200 for i in range(6))
    text = server.ask("GET", "/metrics").content.decode()
    assert 'plusx_images_total{outcome="answered"} 6.0' in text
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "nowhere: is not there"),
        (["{data}", "--port", 0], "no model there"),
        (["{run}", "--port", 70000], "must be at most 65535"),
        (["{run}", "--max-batch", 0], "--max-batch 0 must be at least 1"),
        (["{run}", "--host", "no.such.host.example"], "cannot be bound"),
        (["{run}", "{run}"], "needs a name"),
        (["a={run}", "a={run}"], "given twice"),
        (["{run}", "--api-key-file", "nowhere"], "cannot be read"),
        (["{run}", "--cors-origin", "*"], "must be an origin"),
        (["{run}", "--max-body-mib", 0], "must be above 0"),
    ],
)
def test_what_cannot_be_started(
    command: Callable[..., Any], finished: Any, photos: Path, arguments: list[Any], said: str
) -> None:
    pytest.importorskip("fastapi", reason="extra 'serve' absent")
    filled = [str(one).format(run=finished.path, data=photos) for one in arguments]
    assert said in command("serve", *filled).error


def test_short_keys_are_refused(
    command: Callable[..., Any], finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fastapi", reason="extra 'serve' absent")
    monkeypatch.setenv("PLUSX_API_KEYS", "short")
    assert "fewer than 16" in command("serve", finished.path).error
