"""The routes: ``POST /v1/predict``, the model's card, health, metrics, and the page."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from plusx._version import __version__
from plusx.decide import Decision
from plusx.errors import UnreadableImage, UsageError
from plusx.jobs.predictions_file import layout_of
from plusx.serve.bodies import Given, Unusable, images_of
from plusx.serve.card import card_of
from plusx.serve.counters import CONTENT_TYPE, Counters
from plusx.serve.guard import RETRY_AFTER_S, Guard, busy, error_body
from plusx.serve.lines import Lines
from plusx.serve.schema import Card, Cards, Predictions, Refused, State
from plusx.serve.served import NoHeatMap, Served
from plusx.serve.settings import Settings
from plusx.serve.shelf import Shelf

Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]
PAGE = Path(__file__).parent / "page"
_PAGE_FILES = ("page.js", "page.css", "docs.js")
_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {"type": "array", "items": {"type": "string", "format": "binary"}}
                },
            }
        },
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["data"],
                            "properties": {
                                "name": {"type": "string"},
                                "data": {"type": "string", "format": "byte"},
                            },
                        },
                    }
                },
            }
        },
    },
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Refused, "description": text}
    for status, text in {
        400: "The request is damaged, or a parameter has no possible value.",
        401: "An API key is needed.",
        404: "No model of that name.",
        408: "The body came too slowly.",
        413: "The body is too large, or has too many images.",
        415: "The body is of no kind that is taken.",
        421: "The server does not answer to that host name.",
        500: "A fault of the server.",
        503: "The queue is full, or there was no answer in time; Retry-After says when.",
    }.items()
}
_FEW: dict[int | str, dict[str, Any]] = {
    status: _REFUSALS[status] for status in (400, 401, 404, 421, 500, 503)
}


def create_app(settings: Settings) -> Guard:
    """Load the models and make the ASGI application.

    Raises:
        PlusxError: a model cannot be loaded.
    """
    counters, lines = Counters(settings.metrics_folder), Lines(settings.log_file)
    shelf = Shelf(settings, counters, lines)
    state = {"status": "starting"}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state["status"] = "ok"
        watching = asyncio.create_task(shelf.watch()) if settings.watch else None
        lines.write("started", models=list(shelf.models))
        yield
        state["status"] = "draining"
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        await asyncio.to_thread(shelf.close)
        lines.write("stopped")

    app = FastAPI(
        title="plusx",
        version=__version__,
        summary="Image classification with residual networks.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        responses=_FEW,
    )
    _add_errors(app)
    _add_predict(app, shelf, settings, counters)
    _add_cards(app, shelf)
    _add_state(app, state, counters)
    _add_page(app)
    return Guard(app, settings, counters=counters, lines=lines)


def _add_predict(app: FastAPI, shelf: Shelf, settings: Settings, counters: Counters) -> None:
    under_way = Places(settings.limits.queue, counters)

    @app.post(
        "/v1/predict",
        summary="Classify images",
        response_model=Predictions,
        response_model_exclude_unset=True,
        responses=_REFUSALS
        | {422: {"model": Predictions, "description": "None of the images can be read."}},
        openapi_extra={"requestBody": _BODY},
    )
    async def predict(
        request: Request,
        model: Annotated[
            str | None, Query(description="Which one, where several are served.")
        ] = None,
        top: Annotated[int, Query(ge=1, le=1000, description="Classes per image.")] = 5,
        explain: Annotated[
            bool, Query(description="A heat map for each of the first images.")
        ] = False,
        decide: Annotated[bool, Query(description="False: always an answer.")] = True,
        sureness: Annotated[
            float | None, Query(ge=0, le=1, description="Least probability of an answer.")
        ] = None,
        threshold: Annotated[
            float | None, Query(ge=0, le=1, description="Task multi: least probability of a class.")
        ] = None,
    ) -> JSONResponse:
        """One or many images as multipart (field `files`), one as a raw body, or JSON with base64.
        An image that cannot be read gets an error in its place; the others are answered."""
        body = await request.body()
        given = await images_of(request.headers, body, settings.limits)
        request.state.visit.images = len(given)
        async with shelf.using(model) as served:
            how = _how(served, decide, sureness, threshold)
            with under_way.taken(len(given)):
                explained = settings.limits.explained if explain else 0
                results = await _all(
                    _one(served, i, one, how, top, i < explained) for i, one in enumerate(given)
                )
        good = sum("error" not in result or "top" in result for result in results)
        counters.images.labels("answered").inc(good)
        counters.images.labels("unreadable").inc(len(results) - good)
        return JSONResponse(
            {"model": served.name, "results": results}, status_code=200 if good else 422
        )


class Places:
    """How many images are under way; event loop only."""

    def __init__(self, most: int, counters: Counters) -> None:
        self._most, self._taken, self._counters = most, 0, counters

    def taken(self, images: int) -> _Taken:
        """Hold places for so many images.

        Raises:
            Unusable: there are not so many free.
        """
        if self._taken + images > self._most:
            raise busy(f"the queue is full ({self._taken} of {self._most} images)")
        return _Taken(self, images)

    def add(self, images: int) -> None:
        """Count some in, or out."""
        self._taken += images
        self._counters.waiting.inc(images)


class _Taken:
    def __init__(self, places: Places, images: int) -> None:
        self._places, self._images = places, images

    def __enter__(self) -> None:
        self._places.add(self._images)

    def __exit__(self, *_: object) -> None:
        self._places.add(-self._images)


async def _all(parts: Iterable[Coroutine[Any, Any, dict[str, Any]]]) -> list[dict[str, Any]]:
    """All results in order; where one is a fault, or nobody waits any more, none goes on."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _one(
    served: Served, index: int, given: Given, decision: Decision, top: int, explain: bool
) -> dict[str, Any]:
    """One image's result."""
    found: dict[str, Any] = {"index": index, "name": given.name}
    try:
        prediction = await served.predict(given, decision)
    except UnreadableImage as error:
        return found | {"error": {"code": "unreadable", "message": error.reason}}
    found |= layout_of(served.predictor, top).values(prediction)
    if explain:
        label = prediction.label if prediction.task == "single" else prediction.top(1)[0][0]
        try:
            heat = await served.explain(given, label)
            found["heat_map"] = {"label": label, "png": base64.b64encode(heat.png).decode()}
        except NoHeatMap as error:
            found["error"] = {"code": "no_heat_map", "message": str(error)}
    return found


def _how(served: Served, decide: bool, sureness: float | None, threshold: float | None) -> Decision:
    """The model's decision, as a request overrules it."""
    decision, task = served.predictor.decision, served.predictor.task
    if not decide:
        decision = decision.without_deciding()
    if sureness is not None:
        if task == "multi":
            raise Unusable(400, "parameter", "sureness: this model gives several labels; threshold")
        decision = replace(decision, sureness=sureness)
    if threshold is not None:
        if task == "single":
            raise Unusable(400, "parameter", "threshold: this model gives one label; use sureness")
        decision = replace(decision, thresholds=(threshold,) * len(served.predictor.classes))
    return decision


def _add_cards(app: FastAPI, shelf: Shelf) -> None:
    @app.get("/v1/model", summary="A model's card", response_model=Card)
    async def model(name: str | None = None) -> JSONResponse:
        """Classes, preprocessing, figures, versions."""
        async with shelf.using(name) as served:
            return JSONResponse(card_of(served, shelf.trouble.get(served.name)))

    @app.get("/v1/models", summary="All models", response_model=Cards)
    async def models() -> JSONResponse:
        """Their names."""
        return JSONResponse({"models": list(shelf.models)})


def _add_state(app: FastAPI, state: dict[str, str], counters: Counters) -> None:
    @app.get("/healthz", summary="Is the process alive?", response_model=State)
    async def healthz() -> JSONResponse:
        """Always, while it answers at all."""
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", summary="Will it take requests?", response_model=State)
    async def readyz() -> JSONResponse:
        """Not while it starts or drains."""
        ready = state["status"] == "ok"
        return JSONResponse(state, status_code=200 if ready else 503)

    @app.get("/metrics", summary="Counters for Prometheus", response_class=Response)
    async def metrics() -> Response:
        """Requests, latencies, batch sizes, queue, errors."""
        return Response(counters.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI) -> None:
    def file(path: str, name: str) -> None:
        async def get() -> FileResponse:
            return FileResponse(PAGE / name)

        app.add_api_route(path, get, include_in_schema=False)

    file("/", "page.html")
    file("/docs", "docs.html")
    for name in _PAGE_FILES:
        file(f"/page/{name}", name)


def _add_errors(app: FastAPI) -> None:
    def answer(
        request: Request, error: Unusable, headers: Mapping[str, str] | None = None
    ) -> JSONResponse:
        body = error_body(error, request.state.visit.id)
        more = {"retry-after": str(RETRY_AFTER_S)} if error.status == 503 else {}
        return JSONResponse(body, status_code=error.status, headers=more | dict(headers or {}))

    async def unusable(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Unusable)
        return answer(request, error)

    async def validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        name = str(first["loc"][-1])
        return answer(request, Unusable(400, "parameter", f"{name}: {first['msg']}"))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        unusable = Unusable(error.status_code, "http", str(error.detail))
        return answer(request, unusable, error.headers)

    async def usage(request: Request, error: Exception) -> JSONResponse:
        return answer(request, Unusable(400, "parameter", str(error)))

    async def fault(request: Request, error: Exception) -> JSONResponse:
        text = f"a fault of the server; its log names it under request id {request.state.visit.id}"
        return answer(request, Unusable(500, "fault", text))

    handlers: dict[type[Exception], Handler] = {
        Unusable: unusable,
        RequestValidationError: validation,
        HTTPException: http,
        UsageError: usage,
        Exception: fault,
    }
    for kind, how in handlers.items():
        app.add_exception_handler(kind, how)
