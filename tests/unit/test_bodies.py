"""A compressed body is read like any other, within the limit; what is no such body is named."""

import gzip
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel

from app.web import error_answers
from app.web.bodies import as_sent
from tests.integration.api import problem

LIMIT = 100_000
BODY = b'{"alert_id": "ModelAccuracyLow", "why": "' + b"x" * 5000 + b'"}'


class Alert(BaseModel):
    alert_id: str
    why: str


def make_app() -> FastAPI:
    app = FastAPI(openapi_url=None)
    error_answers.install(app, max_body=LIMIT)

    @app.post("/model")
    async def model(alert: Alert) -> str:
        return alert.why

    @app.post("/raw")
    async def raw(request: Request) -> list[int]:
        body = await request.body()
        return [len(body), len(as_sent(request, body))]

    @app.post("/none")
    async def none() -> str:
        return "not read"

    return app


async def post(path: str, content: Any, *encodings: str) -> httpx.Response:
    headers = [("Content-Type", "application/json"), *(("Content-Encoding", each) for each in encodings)]
    transport = httpx.ASGITransport(make_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.post(path, content=content, headers=headers)


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


def zstd_compress(data: bytes) -> bytes:
    """One frame with a raw block, as RFC 8878 writes it: this Python may have no zstd to make one with."""
    head = b"\x28\xb5\x2f\xfd" + b"\xa0" + len(data).to_bytes(4, "little")
    return head + (len(data) << 3 | 1).to_bytes(3, "little") + data


GOOD: dict[str, tuple[Callable[[bytes], bytes], tuple[str, ...]]] = {
    "gzip": (gzip.compress, ("gzip",)),
    "x-gzip": (gzip.compress, ("x-gzip",)),
    "upper case": (gzip.compress, ("GZIP",)),
    "deflate, in zlib's wrapper": (zlib.compress, ("deflate",)),
    "deflate without it": (raw_deflate, ("deflate",)),
    "identity": (bytes, ("identity",)),
    "an empty name": (bytes, ("",)),
    "identity beside gzip": (gzip.compress, ("identity, gzip",)),
    "two in a header": (lambda data: gzip.compress(zlib.compress(data)), ("deflate, gzip",)),
    "two in two headers": (lambda data: zlib.compress(gzip.compress(data)), ("gzip", "deflate")),
    "two gzip streams": (lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]), ("gzip",)),
    "gzip and a block of zeros": (lambda data: gzip.compress(data) + bytes(512), ("gzip",)),
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("size", [1, 1000, LIMIT], ids=lambda size: f"in pieces of {size}")
async def test_a_compressed_body_is_read(name: str, size: int) -> None:
    make, encodings = GOOD[name]
    sent = make(BODY)

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(sent), size):
            yield sent[at : at + size]

    answer = await post("/model", pieces(), *encodings)
    assert (answer.status_code, answer.json()) == (200, "x" * 5000)
    assert (await post("/raw", sent, *encodings)).json() == [len(BODY), len(sent)], "read, and as sent"


async def test_zstd_is_read_where_python_has_it_and_else_refused_by_name() -> None:
    answer = await post("/model", zstd_compress(BODY), "zstd")
    if sys.version_info >= (3, 14):
        assert (answer.status_code, answer.json()) == (200, "x" * 5000)
    else:
        assert "'zstd'" in problem(answer, 415, "unsupported_encoding")["detail"]
        assert answer.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("encodings", "named"),
    [
        (("br",), "'br'"),
        (("compress",), "'compress'"),
        (("gzip, br",), "'br'"),
        (("aws-chunked", "gzip"), "'aws-chunked'"),
        (("*",), "'*'"),
        (("gzip;q=1",), "'gzip;q=1'"),
        (("\x01<script>" + "y" * 5000,), "y" * 50),
        ((", ".join(["gzip"] * 5),), "5 encodings"),
    ],
    ids=lambda value: str(value)[:20],
)
@pytest.mark.parametrize("path", ["/model", "/raw"])
async def test_an_encoding_that_is_not_read_is_refused_by_its_name(
    path: str, encodings: tuple[str, ...], named: str
) -> None:
    answer = await post(path, BODY, *encodings)
    detail = problem(answer, 415, "unsupported_encoding")["detail"]
    assert named in detail
    assert len(detail) < 300
    assert answer.headers["accept-encoding"].startswith("gzip, deflate")


@pytest.mark.parametrize("encoding", ["br", "gzip"])
@pytest.mark.parametrize(("path", "content"), [("/none", BODY), ("/raw", b"")], ids=["not read", "empty"])
async def test_a_body_that_is_not_there_has_no_encoding(path: str, content: bytes, encoding: str) -> None:
    assert (await post(path, content, encoding)).status_code == 200


BROKEN = {
    "plain JSON": (BODY, "gzip", "its stream is broken"),
    "cut off": (gzip.compress(BODY)[:-3], "gzip", "it ends before its stream does"),
    "cut off in its head": (gzip.compress(BODY)[:5], "gzip", "it ends before its stream does"),
    "one byte": (b"\x78", "deflate", "it ends before its stream does"),
    "a wrong checksum": (gzip.compress(BODY)[:-8] + bytes(8), "gzip", "its stream is broken"),
    "other bytes behind it": (gzip.compress(BODY) + b"more", "gzip", "its stream is broken"),
    "deflate and more": (zlib.compress(BODY) + b"more", "deflate", "bytes follow the end of its stream"),
    "deflate that is JSON": (BODY, "deflate", "its stream is broken"),
    "zlib as gzip": (zlib.compress(BODY), "gzip", "its stream is broken"),
    "the inner one": (gzip.compress(BODY), "deflate, gzip", "its stream is broken"),
    "streams without end": (gzip.compress(b"") * 1500, "gzip", "it has more than 1000 streams"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("path", ["/model", "/raw"])
async def test_a_body_that_is_not_what_its_encoding_says_is_400(path: str, name: str) -> None:
    sent, encoding, why = BROKEN[name]
    detail = problem(await post(path, sent, encoding), 400, "bad_request")["detail"]
    assert detail.startswith(f"The body is not {encoding.partition(',')[0]}, as its Content-Encoding says: {why}")


def bomb(size: int) -> bytes:
    return gzip.compress(bytes(size))


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (bomb(LIMIT + 1), "gzip"),
        (bomb(200 * LIMIT), "gzip"),
        (zlib.compress(bytes(200 * LIMIT)), "deflate"),
        (raw_deflate(bytes(200 * LIMIT)), "deflate"),
        (gzip.compress(bomb(200 * LIMIT)), "gzip, gzip"),
        # The outer layer gives very much, the inner one nothing.
        (gzip.compress(b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * LIMIT), "deflate, gzip"),
        (b"x" * (LIMIT + 1), "gzip"),
    ],
    ids=["a byte too much", "gzip", "deflate", "raw deflate", "two layers", "a layer between", "as sent"],
)
@pytest.mark.parametrize("path", ["/model", "/raw"])
async def test_a_body_that_grows_over_the_limit_is_413(path: str, content: bytes, encoding: str) -> None:
    assert problem(await post(path, content, encoding), 413, "too_large")["limit"] == LIMIT


async def test_a_body_that_grows_to_just_the_limit_is_read() -> None:
    assert (await post("/raw", bomb(LIMIT), "gzip")).json()[0] == LIMIT


async def test_a_bomb_is_not_inflated_to_its_end() -> None:
    read = 0
    sent = zlib.compressobj()

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            data = sent.compress(bytes(LIMIT)) + sent.flush(zlib.Z_SYNC_FLUSH)
            read += len(data)
            yield data

    problem(await post("/raw", endless(), "deflate"), 413, "too_large")
    assert read < 5000
