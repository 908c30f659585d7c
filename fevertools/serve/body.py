"""What a client sends: a picture, two vectors, the words behind the question mark. All of it is untrusted."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from fevertools.serve.settings import Settings

MAX_JSON_BYTES: Final = 2**20

_PLAIN: Final = "application/octet-stream"
_FORM: Final = "multipart/form-data"
_JSON: Final = "application/json"


async def read_picture(request: Request, settings: Settings) -> bytes | bytearray:
    """The encoded picture of a request: its whole body, or the one file of a form.

    Raises:
        HTTPException: 415 for another type, 408 where the body takes too long, 413 where it is too large, 422 for a
            form that does not hold just one file.
    """
    kind = _content_type(request)
    if kind and not kind.startswith("image/") and kind not in (_PLAIN, _FORM):
        raise HTTPException(415, f"the body is {kind[:60]!r}; send a picture as image/jpeg, {_PLAIN} or {_FORM}")
    body = await _read(request, settings.max_bytes, settings.body_timeout)
    return await _file(request, body) if kind == _FORM else body


async def read_object(request: Request, settings: Settings) -> Any:
    """The JSON value of a request.

    Raises:
        HTTPException: 415, 408 and 413 as for `read_picture`, 422 where the body is no JSON.
    """
    kind = _content_type(request)
    if kind and kind != _JSON:
        raise HTTPException(415, f"the body is {kind[:60]!r}; send {_JSON}")
    body = await _read(request, min(settings.max_bytes, MAX_JSON_BYTES), settings.body_timeout)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:  # ValueError: also bytes of no encoding, numbers without end
        raise HTTPException(422, f"the body is no JSON: {str(error)[:200]}") from error


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _read(request: Request, most: int, seconds: float) -> bytearray:
    too_large = HTTPException(413, f"the body has more than {most} bytes; send a smaller picture")
    stated = request.headers.get("content-length", "0")
    # Nothing is read of what says that it is too large.
    if not re.fullmatch("[0-9]{1,18}", stated) or int(stated) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(seconds), aclosing(request.stream()) as chunks:
            async for chunk in chunks:
                if len(body) + len(chunk) > most:
                    raise too_large
                body += chunk
    except TimeoutError as error:
        raise HTTPException(
            408, f"the body was not here after {seconds:g} s; send it sooner", {"Connection": "close"}
        ) from error
    return body


async def _file(request: Request, body: bytearray) -> bytes:
    async def once() -> AsyncGenerator[bytes, None]:
        yield bytes(body)

    parser = MultiPartParser(request.headers, once(), max_files=1, max_fields=0)
    # A part above it would go to a file on disk, and no picture does.
    parser.spool_max_size = len(body) + 1
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:
        raise HTTPException(422, f"the form cannot be read: {str(error)[:200]} Send one file, nothing else") from error
    for file in form.values():  # one at the most
        if isinstance(file, UploadFile):
            return await file.read()
    raise HTTPException(422, "the form holds no file; send one, nothing else")


def read_query(request: Request, names: Collection[str], settings: Settings) -> dict[str, Any]:
    """The values behind the question mark, each of `names` once; what is not given has its default.

    Raises:
        HTTPException: 422 for a name that is unknown or comes twice, or a value that its name does not have.
    """
    found = {name: DEFAULTS[name](settings) for name in names}
    given = request.query_params.multi_items()
    for name, text in given:
        if name not in names or [other for other, _ in given].count(name) > 1:
            raise HTTPException(422, f"{name[:60]!r} in the query is unknown or comes twice; known: {', '.join(names)}")
        found[name] = _READERS[name](text, name, settings)
    return found


def _flag(text: str, name: str, _: Settings) -> bool:
    if text not in ("true", "false"):
        raise HTTPException(422, f"{name} is {text[:60]!r}; use true or false")
    return text == "true"


def _count(text: str, name: str, settings: Settings) -> int:
    most = settings.max_faces
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise HTTPException(422, f"{name} is {text[:60]!r}; use a whole number from 1 to {most}")
    return int(text)


_READERS: Final[Mapping[str, Callable[[str, str, Settings], Any]]] = MappingProxyType(
    {"cropped": _flag, "flip": _flag, "max_faces": _count}
)
DEFAULTS: Final[Mapping[str, Callable[[Settings], Any]]] = MappingProxyType(
    {"cropped": lambda _: False, "flip": lambda _: False, "max_faces": lambda settings: settings.max_faces}
)
"""Name in the query -> its value where it is not given."""
