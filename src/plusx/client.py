"""Talk to a served model. Needs neither torch nor FastAPI: the standard library alone.

>>> plusx.Client("http://127.0.0.1:8000").predict(["a.jpg", "b.jpg"])
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from plusx.errors import PlusxError, UsageError

PathLike = str | os.PathLike[str]
RETRIED = (502, 503, 504)
TOGETHER = 16 * 2**20
"""Bytes of the files of one request, where there are several."""


class ServerError(PlusxError):
    """The server refused a request, or cannot be reached.

    Attributes:
        status: HTTP's; None where there was no answer.
        code: the server's word for it.
    """

    def __init__(self, text: str, *, status: int | None = None, code: str = "unreachable") -> None:
        super().__init__(text)
        self.status, self.code = status, code


@dataclass(frozen=True)
class ServedPrediction:
    """One image's answer.

    Attributes:
        path: the file that was sent.
        label: the class to answer; None where there is an error, or several labels.
        probability: of ``label``, 0..1.
        decision: ``answer``, ``unsure`` or ``unknown``; ``answer`` where the model decides nothing;
            None where there is an error.
        labels: of a model with several labels an image; else ``label`` alone.
        error: why there is no answer; None where there is one.
        values: all that the server said of this image.
    """

    path: str
    label: str | None
    probability: float | None
    decision: str | None
    labels: tuple[str, ...]
    error: str | None
    values: dict[str, Any] = field(repr=False)


class Client:
    """A connection to one server; it is kept open and used again. Not for several threads at once.

    Args:
        url: of the server, such as ``http://127.0.0.1:8000``.
        api_key: where the server wants one.
        model: which one, where it serves several.
        batch: images per request.
        retries: how often a request is sent again after 502, 503, 504 or a broken connection.
        timeout_s: of one attempt.

    Raises:
        UsageError: the URL is none, or a number is impossible.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        batch: int = 16,
        retries: int = 5,
        timeout_s: float = 60.0,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"url {url!r} must be as http://HOST:PORT")
        if batch < 1 or retries < 0 or not timeout_s > 0:
            raise UsageError(f"batch {batch}, retries {retries}, timeout_s {timeout_s}: must be "
                             "at least 1, at least 0, above 0")  # fmt: skip
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout_s)
        self._url, self._base = url, parts.path.rstrip("/")
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._model, self._batch, self._retries = model, batch, retries

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; the next request opens it again."""
        self._connection.close()

    def predict(
        self, paths: PathLike | Iterable[PathLike], *, top: int = 5, **options: Any
    ) -> list[ServedPrediction]:
        """Classify image files, in order.

        Args:
            paths: one or many.
            top: classes per image.
            **options: further query parameters: ``explain``, ``decide``, ``sureness``,
                ``threshold``.

        Raises:
            ServerError: the server refused, or cannot be reached.
            OSError: a file cannot be read.
        """
        listed = [paths] if isinstance(paths, str | os.PathLike) else paths
        return list(self.stream(listed, top=top, **options))

    def stream(
        self, paths: Iterable[PathLike], *, top: int = 5, **options: Any
    ) -> Iterator[ServedPrediction]:
        """The same one by one, memory flat."""
        asked = {"top": top, "model": self._model, **options}
        plain = {k: str(v).lower() if isinstance(v, bool) else v for k, v in asked.items()
                 if v is not None}  # fmt: skip
        query = f"/v1/predict?{urlencode(plain)}"
        for group in _groups(paths, self._batch):
            for path, values in self._results(query, group):
                yield _prediction(os.fspath(path), values)

    def _results(
        self, query: str, group: list[PathLike]
    ) -> Iterator[tuple[PathLike, dict[str, Any]]]:
        """What the server says of each; halves where it takes no more at once."""
        body, kind = _multipart(group)
        try:
            found = self._ask("POST", query, body, {"Content-Type": kind}, fine=(200, 422))
        except ServerError as error:
            if error.status != 413:
                raise
            if len(group) > 1:
                half = len(group) // 2
                yield from self._results(query, group[:half])
                yield from self._results(query, group[half:])
            else:
                yield group[0], {"error": {"code": error.code, "message": str(error)}}
            return
        results = found.get("results")
        if not isinstance(results, list) or len(results) != len(group):
            raise ServerError(f"{self._url}: its answer is not one result per image", code="http")
        yield from zip(group, results, strict=True)

    def model(self) -> dict[str, Any]:
        """The model's card.

        Raises:
            ServerError: the server refused, or cannot be reached.
        """
        query = "" if self._model is None else "?" + urlencode({"name": self._model})
        return self._ask("GET", f"/v1/model{query}", None, {})

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str],
        fine: Sequence[int] = (200,),
    ) -> dict[str, Any]:  # fmt: skip
        for attempt in range(self._retries + 1):
            last = attempt == self._retries
            try:
                try:
                    self._connection.request(
                        method, self._base + path, body, self._headers | headers
                    )
                except (BrokenPipeError, ConnectionResetError):
                    # it may have refused before it had all, and said why
                    if self._connection.sock is None:
                        raise
                with self._connection.getresponse() as answer:
                    status, wait = answer.status, answer.headers.get("Retry-After")
                    content = answer.read()
            except (HTTPException, OSError) as error:
                self._connection.close()
                if last:
                    raise ServerError(f"{self._url}: cannot be reached: {error}") from error
                time.sleep(_pause(attempt, None))
                continue
            if status in fine:
                return _object(content, self._url)
            if last or status not in RETRIED:
                raise self._refusal(status, content)
            self._connection.close()
            time.sleep(_pause(attempt, wait))
        raise AssertionError("unreachable")

    def _refusal(self, status: int, content: bytes) -> ServerError:
        try:
            said = json.loads(content)["error"]
            return ServerError(f"{self._url}: {said['message']}", status=status, code=said["code"])
        except (ValueError, KeyError, TypeError):
            return ServerError(f"{self._url}: answered HTTP {status}", status=status, code="http")


def _pause(attempt: int, asked: str | None) -> float:
    """Seconds before the next attempt: what the server asked for, or doubling from 0.1."""
    longest = 10.0
    if asked is not None and asked.isdigit():
        return min(longest, float(asked))
    return float(min(longest, 0.1 * 2**attempt))


def _groups(paths: Iterable[PathLike], size: int) -> Iterator[list[PathLike]]:
    """At most ``size`` files of together ``TOGETHER`` bytes, but at least one."""
    group: list[PathLike] = []
    held = 0
    for path in paths:
        own = Path(path).stat().st_size
        if group and (len(group) == size or held + own > TOGETHER):
            yield group
            group, held = [], 0
        group.append(path)
        held += own
    if group:
        yield group


def _multipart(paths: Sequence[PathLike]) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = []
    for path in paths:
        name = Path(path).name.encode("utf-8", "replace").decode()
        safe = name.replace("\\", "\\\\").replace('"', "%22").replace("\r", " ").replace("\n", " ")
        head = f'Content-Disposition: form-data; name="files"; filename="{safe}"'
        kind = "Content-Type: application/octet-stream"
        parts += [
            f"--{boundary}\r\n{head}\r\n{kind}\r\n\r\n".encode(),
            Path(path).read_bytes(),
            b"\r\n",
        ]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _object(content: bytes, url: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ServerError(f"{url}: its answer is no JSON", code="http") from error
    if not isinstance(found, dict):
        raise ServerError(f"{url}: its answer is no JSON object", code="http")
    return found


def _prediction(path: str, values: dict[str, Any]) -> ServedPrediction:
    error = values.get("error")
    label = values.get("label")
    labels = values.get("labels")
    answered = "top" in values or labels is not None
    return ServedPrediction(
        path=path,
        label=label,
        probability=values.get("probability"),
        decision=values.get("decision", "answer") if answered else None,
        labels=tuple(labels) if labels is not None else () if label is None else (label,),
        error=None if answered or error is None else error["message"],
        values=values,
    )
