"""From a request's body to named images: multipart, a raw image, or JSON with base64."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from plusx.serve.settings import Limits

FIELD = "files"
RAW = "image"
"""What an image without a name is called."""

_LONGEST_NAME = 255
_MOST_MARKS = 100_000


@dataclass(frozen=True)
class Given:
    """One image of a request; ``name`` is what its sender called it, and never opened."""

    name: str
    content: bytes


class Unusable(Exception):
    """A request that cannot be answered; ``status`` is HTTP's, ``code`` a word for programs."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


async def images_of(headers: Headers, body: bytes, limits: Limits) -> list[Given]:
    """The images of one request.

    Raises:
        Unusable: the body is none of the three kinds, is damaged, or holds no or too many images.
    """
    if headers.get("content-encoding", "identity") != "identity":
        raise Unusable(415, "content_encoding", "send the body as it is, without Content-Encoding")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body:
        raise Unusable(400, "empty_body", "the body is empty; send an image")
    if kind == "multipart/form-data":
        found = await _multipart(headers, body, limits)
    elif kind == "application/json":
        found = await asyncio.to_thread(_json, body)  # large ones take long
    elif kind.startswith("image/") or kind in ("application/octet-stream", "application/dicom", ""):
        found = [Given(RAW, body)]
    else:
        raise Unusable(
            415, "content_type",
            f"Content-Type {kind[:80]!r} is none of multipart/form-data, image/*, application/json",
        )  # fmt: skip
    if not found:
        raise Unusable(400, "no_images", f"no image in the request (multipart field {FIELD!r})")
    if len(found) > limits.request_images:
        raise _too_many(f"{len(found)} images", limits)
    return found


class _InMemory(MultiPartParser):
    spool_max_size = 2**62  # the body's size is bounded, and nothing is to touch the disk


async def _multipart(headers: Headers, body: bytes, limits: Limits) -> list[Given]:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = _InMemory(headers, whole(), max_files=limits.request_images, max_fields=16)
        form = await parser.parse()
    except MultiPartException as error:
        said = " ".join(str(error.message).split())
        if said.startswith("Too many files"):
            raise _too_many(f"more than {limits.request_images} images", limits) from error
        raise Unusable(400, "multipart", f"the multipart body is damaged: {said}") from error
    except (KeyError, ValueError, UnicodeError) as error:
        raise Unusable(400, "multipart", "the multipart body is damaged") from error
    found = []
    try:
        for field, value in form.multi_items():
            if isinstance(value, UploadFile) and field == FIELD:
                found.append(Given(_named(value.filename), await value.read()))
    finally:
        await form.close()
    return found


def _json(body: bytes) -> list[Given]:
    """``{"images": [{"name": "a.jpg", "data": "<base64>"}, "<base64>", ...]}``."""
    # No honest body has many: base64 has none of these, and a list of lists fills the memory.
    if sum(body.count(mark) for mark in b"[{,") > _MOST_MARKS:
        raise Unusable(400, "json", "the body holds far more than images and their names")
    try:
        values: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Unusable(400, "json", "the body is no JSON") from error
    listed = values.get("images") if isinstance(values, dict) else None
    if not isinstance(listed, list):
        raise Unusable(400, "json", 'the body must be {"images": [{"name": ..., "data": BASE64}]}')
    found = []
    for i, one in enumerate(listed):
        plain = {"data": one} if isinstance(one, str) else one
        data = plain.get("data") if isinstance(plain, dict) else None
        name = plain.get("name", f"{RAW} {i + 1}") if isinstance(plain, dict) else None
        if not isinstance(data, str) or not isinstance(name, str):
            raise Unusable(400, "json", f"images[{i}] is neither base64 text nor "
                                        '{"name": TEXT, "data": BASE64}')  # fmt: skip
        if data.startswith("data:"):
            data = data.partition(",")[2]
        try:
            found.append(Given(_named(name), base64.b64decode(data, validate=True)))
        except (binascii.Error, ValueError) as error:
            raise Unusable(400, "json", f"images[{i}] is no base64") from error
    return found


def _too_many(what: str, limits: Limits) -> Unusable:
    return Unusable(
        413, "too_many_images", f"{what} in one request; at most {limits.request_images}"
    )


def _named(name: str | None) -> str:
    """Printable and short: names come back in answers."""
    plain = "".join(c if c.isprintable() else "?" for c in (name or RAW))
    return plain[:_LONGEST_NAME]
