"""What stands before every route: who may come in, how much and how long; and what is written down.

A plain ASGI wrapper, so that a body is counted while it comes and a slow sender is cut off.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from plusx.serve.bodies import Unusable
from plusx.serve.counters import Counters
from plusx.serve.keys import admitted
from plusx.serve.lines import Lines
from plusx.serve.settings import Settings

OPEN = ("/", "/docs", "/healthz", "/readyz", "/openapi.json")
"""Paths that need no key: they tell nothing of the models' answers. So does all below /page/."""

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
RETRY_AFTER_S = 1
LINGER_S = 2.0


@dataclass
class Visit:
    """One request as it goes.

    Attributes:
        id: what its sender called it (``X-Request-ID``), or a new one.
        images: in it.
        started: by ``time.perf_counter``.
        taken: bytes of its body.
        whole: whether the body has come.
        answering: whether the answer has begun.
        status: of its answer; 0 before.
    """

    id: str
    images: int | None = None
    started: float = field(default_factory=time.perf_counter)
    taken: int = 0
    whole: bool = False
    status: int = 0
    answering: bool = False


class Guard:
    """Wraps the routes.

    Args:
        app: the routes.
        settings: who may come in and how much.
        counters: get every request.
        lines: get every request.
    """

    def __init__(
        self, app: ASGIApp, settings: Settings, *, counters: Counters, lines: Lines
    ) -> None:
        self._app, self._settings = app, settings
        self._counters, self._lines = counters, lines
        self._bodies = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        visit = Visit(_request_id(headers))
        scope["state"] = {**scope.get("state", {}), "visit": visit}
        answer = self._answering(send, visit, headers.get("origin"))
        limit = self._settings.limits.request_s
        inner: Scope = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            await asyncio.wait_for(self._admit(inner, headers, receive, answer, visit), limit)
        except Unusable as error:
            if visit.taken or headers.get("expect", "").lower() != "100-continue":
                await self._drain(receive)
            await _refuse(answer, visit, error)
        except (asyncio.TimeoutError, TimeoutError):
            await _refuse(answer, visit, self._late(visit))
        except Exception as error:
            self._lines.write("fault", request_id=visit.id, kind=type(error).__name__,
                              where=_where(error))  # fmt: skip
            if not visit.answering:
                text = f"a fault of the server; its log names it under request id {visit.id}"
                await _refuse(answer, visit, Unusable(500, "fault", text))
        finally:
            self._bodies -= visit.taken
            self._note({**scope, "route": inner.get("route")}, visit)

    async def _admit(
        self, scope: Scope, headers: Headers, receive: Receive, answer: Send, visit: Visit
    ) -> None:
        """Check, take the body as a whole, and let the routes answer."""
        self._check(scope, headers)
        if scope["method"] == "OPTIONS":
            await answer({"type": "http.response.start", "status": 204, "headers": []})
            await answer({"type": "http.response.body"})
            return
        body = await self._body(receive, visit)
        visit.whole = True

        leaving, told = asyncio.ensure_future(_gone(receive)), False

        async def given() -> Message:
            nonlocal told
            if told:  # nothing follows but the end of the connection
                await asyncio.shield(leaving)
                return {"type": "http.disconnect"}
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        answering = asyncio.ensure_future(self._app(scope, given, answer))
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
            elif not visit.answering:  # nobody waits for it: its images leave the queue
                raise Unusable(499, "gone", "the sender has gone")
            else:
                await answering
        finally:
            await _end(answering, leaving)

    async def _body(self, receive: Receive, visit: Visit) -> bytes:
        """The whole body, counted while it comes."""
        limits, parts, more = self._settings.limits, [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Unusable(499, "gone", "the sender has gone")
            part, more = message.get("body", b""), message.get("more_body", False)
            visit.taken += len(part)
            self._bodies += len(part)
            if visit.taken > limits.body_bytes:
                raise self._too_large()
            if self._bodies > limits.bodies_bytes:
                raise busy("too many bytes are being received")
            parts.append(part)
        return b"".join(parts)

    async def _drain(self, receive: Receive) -> None:
        """Take what a refused sender is still sending, for a moment: a connection that is closed
        under its hands would never show it the refusal."""

        async def rest() -> None:
            left = self._settings.limits.body_bytes
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return

        with suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(rest(), LINGER_S)

    def _late(self, visit: Visit) -> Unusable:
        limit = self._settings.limits.request_s
        if not visit.whole:
            return Unusable(408, "slow", f"the body did not come within {limit:g} s")
        return Unusable(503, "timeout", f"no answer within {limit:g} s; try again later")

    def _check(self, scope: Scope, headers: Headers) -> None:
        settings, path = self._settings, scope["path"]
        hosts = settings.answered_hosts
        if hosts and _host(headers.get("host", "")) not in hosts:
            raise Unusable(421, "host", "this server does not answer to that name (--allow-host)")
        free = path in OPEN or path.startswith("/page/")
        preflight = scope["method"] == "OPTIONS"
        if settings.keys and not free and not preflight and not admitted(headers, settings.keys):
            raise Unusable(401, "key", "send an API key: Authorization: Bearer KEY")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise Unusable(400, "content_length", "Content-Length is no number")
        if int(length) > settings.limits.body_bytes:
            raise self._too_large()
        if self._bodies + int(length) > settings.limits.bodies_bytes:
            raise busy("too many bytes are being received")

    def _too_large(self) -> Unusable:
        most = self._settings.limits.body_mib
        return Unusable(413, "too_large", f"the body is larger than {most:g} MiB")

    def _answering(self, send: Send, visit: Visit, origin: str | None) -> Send:
        more = dict(_HEADERS) | {"x-request-id": visit.id}
        if origin is not None and origin in self._settings.origins:
            more |= {
                "access-control-allow-origin": origin,
                "access-control-allow-headers": "authorization, content-type, x-api-key",
                "access-control-allow-methods": "GET, POST",
                "vary": "origin",
                "cross-origin-resource-policy": "cross-origin",
            }

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status, visit.answering = message["status"], True
                own = {name for name, _ in message.get("headers", [])}
                extra = [(k.encode(), v.encode()) for k, v in more.items() if k.encode() not in own]
                message = {**message, "headers": [*message.get("headers", []), *extra]}
            await send(message)

        return answer

    def _note(self, scope: Scope, visit: Visit) -> None:
        route = scope.get("route")
        path = getattr(route, "path", "other")
        seconds = time.perf_counter() - visit.started
        self._counters.requests.labels(path, str(visit.status)).inc()
        self._counters.seconds.labels(path).observe(seconds)
        client: Any = scope.get("client") or ("unknown",)
        self._lines.write(
            "request", request_id=visit.id, method=scope["method"], path=scope["path"][:200],
            status=visit.status, ms=round(1000 * seconds, 1), images=visit.images,
            bytes=visit.taken, client=client[0],
        )  # fmt: skip


def busy(why: str) -> Unusable:
    """A refusal that says when to come again."""
    return Unusable(503, "busy", f"{why}; try again in {RETRY_AFTER_S} s")


def error_body(error: Unusable, request_id: str) -> dict[str, Any]:
    """What every refused request gets."""
    return {"error": {"code": error.code, "message": error.message, "request_id": request_id}}


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what still runs, and wait until it has let go of what it held."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _refuse(send: Send, visit: Visit, error: Unusable) -> None:
    if visit.answering:  # an answer that has begun cannot be taken back; the connection is closed
        raise ConnectionAbortedError(error.message)
    body = json.dumps(error_body(error, visit.id)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)),
               "connection": "close"}  # fmt: skip
    if error.status == 503:
        headers["retry-after"] = str(RETRY_AFTER_S)
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    fine = 0 < len(given) <= 64 and given.isascii() and all(c.isalnum() or c in "-_" for c in given)
    return given if fine else uuid.uuid4().hex


def _host(text: str) -> str:
    """``Host`` without its port, in lower case."""
    if text.startswith("["):
        return text[1:].partition("]")[0].lower()
    return text.rpartition(":")[0].lower() if ":" in text else text.lower()


def _where(error: BaseException) -> str:
    """File and line where it was raised; never what it says, which may hold data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "unknown"
    name = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{name}:{trace.tb_lineno}"
