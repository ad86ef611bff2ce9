"""The API as a program uses it: its answers are those of ``plusx predict``."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import plusx
from plusx.errors import UsageError


def shares(result: dict[str, Any]) -> dict[str, float]:
    return {one["label"]: one["probability"] for one in result["top"]}


def test_answers_equal_those_of_predict(server: Any, finished: Any, pictures: list[Path]) -> None:
    answer = server.predict(*pictures[:8])
    assert answer.status == 200
    engine = server.ask("GET", "/v1/model").json["engine"]
    expected = plusx.Predictor(finished.path, engine=engine).predict(pictures[:8])
    for given, found, wanted in zip(pictures, answer.json["results"], expected, strict=False):
        assert found["name"] == given.name
        assert found["label"] == wanted.label
        assert found["decision"] == wanted.decision
        assert tuple(found["set"]) == wanted.set
        assert found["unknown_score"] == pytest.approx(wanted.unknown_score, abs=2e-6)
        for label, share in wanted.top(2):
            assert shares(found)[label] == pytest.approx(share, abs=1.5e-6)  # 6 decimals are sent


def test_three_kinds_of_body_say_the_same(server: Any, pictures: list[Path]) -> None:
    content = pictures[0].read_bytes()
    many = server.predict(pictures[0]).json["results"][0]
    raw = server.ask("POST", "/v1/predict", content, Content_Type="image/png").json["results"][0]
    data = base64.b64encode(content).decode()
    body = json.dumps({"images": [{"name": "a", "data": data}, f"data:image/png;base64,{data}"]})
    listed = server.ask("POST", "/v1/predict", body.encode(), Content_Type="application/json")
    assert many["top"] == raw["top"] == listed.json["results"][0]["top"]
    assert [one["name"] for one in listed.json["results"]] == ["a", "image 2"]


def test_a_bad_image_spoils_no_other(server: Any, pictures: list[Path]) -> None:
    answer = server.predict(pictures[0], b"no image at all", pictures[1])
    assert answer.status == 200
    good, bad, other = answer.json["results"]
    assert "error" not in good
    assert "error" not in other
    assert bad["error"]["code"] == "unreadable"
    assert "not a JPEG" in bad["error"]["message"]
    assert server.predict(b"nothing", b"of use").status == 422


def test_options_of_a_request(server: Any, pictures: list[Path]) -> None:
    one = server.predict(pictures[0], query="?top=1&explain=true").json["results"][0]
    assert len(one["top"]) == 1
    heat = Image.open(io.BytesIO(base64.b64decode(one["heat_map"]["png"])))
    assert heat.size == (32, 32)
    assert one["heat_map"]["label"] == one["label"]
    strange = np.random.default_rng(0).integers(0, 2, (32, 32, 3)) * 255
    file = io.BytesIO()
    Image.fromarray(strange.astype(np.uint8)).save(file, "PNG")
    assert server.predict(file.getvalue(), query="?decide=false").json["results"][0][
        "decision"] == "answer"  # fmt: skip
    everything = server.predict(*pictures[:8], query="?sureness=0.999").json["results"]
    for result in everything:
        sure = result["probability"] >= 0.999
        assert (result["decision"] != "unsure") == (sure or result["decision"] == "unknown")
    assert {"unsure"} < {result["decision"] for result in everything} | {"answer"}
    assert server.predict(pictures[0], query="?threshold=0.5").code == "parameter"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [("?top=0", 400, "parameter"), ("?top=x", 400, "parameter"), ("?sureness=2", 400, "parameter"),
     ("?model=other", 404, "no_model"), ("?explain=perhaps", 400, "parameter")],
)  # fmt: skip
def test_impossible_options(
    server: Any, pictures: list[Path], query: str, status: int, code: str
) -> None:
    answer = server.predict(pictures[0], query=query)
    assert (answer.status, answer.code) == (status, code)


def test_card_health_and_description(server: Any, finished: Any) -> None:
    card = server.ask("GET", "/v1/model").json
    assert card["classes"] == list(plusx.Predictor(finished.path).classes)
    assert card["figures"] == {"headline": finished.metrics["headline"]}
    assert str(finished.path.parent) not in json.dumps(card)
    assert server.ask("HEAD", "/healthz").status == 200
    assert server.ask("GET", "/v1/models").json == {"models": ["default"]}
    assert server.ask("GET", "/healthz").json == {"status": "ok"}
    described = server.ask("GET", "/openapi.json").json
    assert (
        "multipart/form-data" in described["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    )
    assert server.ask("GET", "/nowhere").code == "http"
    assert server.ask("DELETE", "/v1/predict").status == 405


def test_metrics_count_what_happened(server: Any, pictures: list[Path]) -> None:
    def number(name: str) -> float:
        text = server.ask("GET", "/metrics").content.decode()
        found = [line for line in text.splitlines() if line.startswith(name)]
        return sum(float(line.split()[-1]) for line in found)

    before = number('plusx_images_total{outcome="answered"}')
    server.predict(*pictures[:3])
    assert number('plusx_images_total{outcome="answered"}') == before + 3
    assert number("plusx_queue_images") == 0
    assert number('plusx_requests_total{path="/v1/predict",status="200"}') >= 1


def test_a_request_is_one_line_without_its_image(server: Any, pictures: list[Path]) -> None:
    server.predict(pictures[0], X_Request_ID="my-own-id")

    def mine() -> list[dict[str, Any]]:
        return [one for one in server.events("request") if one["request_id"] == "my-own-id"]

    server.until(lambda: bool(mine()))
    (line,) = mine()
    assert (line["status"], line["images"], line["path"]) == (200, 1, "/v1/predict")
    assert pictures[0].name not in json.dumps(line)


def test_client(server: Any, finished: Any, pictures: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / 'a b;".png'
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    with plusx.Client(server.url, batch=3) as client:
        found = client.predict([*pictures[:4], broken])
        assert client.model()["task"] == "single"
    expected = plusx.Predictor(finished.path).predict(pictures[:4])
    assert [one.label for one in found[:4]] == [one.label for one in expected]
    assert found[4].label is None
    assert found[4].error
    with pytest.raises(UsageError, match="url 'somewhere'"):
        plusx.Client("somewhere")
    other = plusx.Client(server.url, model="other")
    with other, pytest.raises(plusx.PlusxError, match="no model"):
        other.predict(pictures[0])


def test_client_needs_neither_torch_nor_fastapi() -> None:
    code = ("import sys, plusx; plusx.Client('http://127.0.0.1:1'); "
            "assert not {'torch', 'fastapi', 'numpy'} & set(sys.modules)")  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)


def test_client_says_when_nobody_is_there(pictures: list[Path]) -> None:
    with pytest.raises(plusx.PlusxError, match="cannot be reached"):
        plusx.Client("http://127.0.0.1:9", retries=1).predict(pictures[0])


def test_client_halves_what_is_too_much_at_once(server: Any, pictures: list[Path]) -> None:
    """The server takes 8 images a request."""
    with plusx.Client(server.url, batch=16, retries=0) as client:
        found = client.predict(path for path in pictures[:12])
    assert [one.path for one in found] == [str(path) for path in pictures[:12]]
    assert all(one.error is None and one.decision for one in found)


def test_client_says_of_one_file_that_it_is_too_large(
    server: Any, pictures: list[Path], tmp_path: Path
) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(3 * 2**20))
    with plusx.Client(server.url, retries=0) as client:
        first, second = client.predict([large, pictures[0]])
    assert "larger than 1 MiB" in str(first.error)
    assert (first.label, first.decision, second.error) == (None, None, None)
