"""Tokens that are handed to us, in the policy or in a file, and secrets that are told to nobody."""

import logging
import os
import traceback
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.airflow.client import AirflowClient, Auth, PasswordAuth, TokenAuth, TokenFileAuth
from app.errors import Refused, TargetError
from app.http import open_http
from tests.fakes.clock import NOON, ManualClock
from tests.fakes.faults import answer
from tests.unit.airflow_site import Site, jwt


async def test_a_fixed_token_is_sent_and_when_refused_named_at_once() -> None:
    site = Site()
    client = site.client_with(TokenAuth(site.fake.mint()))
    assert (await client.dag("d")).dag_id == "d"
    site.fake.expire_tokens()
    with pytest.raises(Refused) as raised:
        await client.dag("d")
    assert raised.value.code == "token_rejected"
    assert site.logins() == 0
    assert len(site.fake.calls("dag")) == 2


def put(path: Path, token: str, at: float) -> None:
    path.write_text(token)
    os.utime(path, (at, at))


async def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    site = Site()
    path = tmp_path / "token"
    put(path, f"{site.fake.mint()}\n", 1000)
    client = site.client_with(TokenFileAuth(path))
    await client.dag("d")
    put(path, site.fake.mint(), 2000)
    await client.dag("d")
    first, second = (seen.call.headers["authorization"] for seen in site.fake.calls("dag"))
    assert first != second
    assert second == f"Bearer {path.read_text()}"


async def test_a_token_file_that_kept_its_time_is_read_again_once_airflow_refuses_the_token(tmp_path: Path) -> None:
    site = Site()
    path = tmp_path / "token"
    put(path, site.fake.mint(), 1000)
    client = site.client_with(TokenFileAuth(path))
    await client.dag("d")
    site.fake.rotate_secret()
    put(path, site.fake.mint(), 1000)
    assert (await client.dag("d")).dag_id == "d"
    assert site.fake.calls("dag")[-1].status == 200


async def test_a_token_file_that_still_holds_the_refused_token_is_not_tried_twice(tmp_path: Path) -> None:
    site = Site()
    path = tmp_path / "token"
    put(path, site.fake.mint(), 1000)
    site.fake.expire_tokens()
    with pytest.raises(Refused) as raised:
        await site.client_with(TokenFileAuth(path)).dag("d")
    assert raised.value.code == "token_rejected"
    assert len(site.fake.calls("dag")) == 1


@pytest.mark.parametrize(
    ("content", "code"),
    [
        pytest.param(None, "token_file", id="there is none"),
        pytest.param(b"", "token_rejected", id="empty"),
        pytest.param(b"two words", "token_rejected", id="two words"),
        pytest.param(b"two\nlines", "token_rejected", id="two lines"),
        pytest.param(b"\xff\xfe", "token_rejected", id="not text"),
    ],
)
async def test_a_token_file_that_holds_no_token_is_named_and_nothing_is_sent(
    tmp_path: Path, content: bytes | None, code: str
) -> None:
    site = Site()
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Refused, match=str(path)) as raised:
        await site.client_with(TokenFileAuth(path)).dag("d")
    assert raised.value.code == code
    assert site.fake.seen == []


LEAKS: list[Any] = [
    pytest.param("POST", 400, id="400"),
    pytest.param("POST", 401, id="401"),
    pytest.param("POST", 409, id="409"),
    pytest.param("POST", 422, id="422"),
    pytest.param("POST", 429, id="429"),
    pytest.param("POST", 500, id="500"),
    pytest.param("GET", 500, id="500 to a read"),
]


@pytest.mark.parametrize(("method", "status"), LEAKS)
async def test_a_server_that_echoes_our_secrets_does_not_get_them_into_an_error(
    method: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [jwt(exp=NOON.timestamp() + 3600, jti=n) for n in range(3)]
    fresh, password = iter(tokens), "correct-horse-battery"

    def echo(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": next(fresh)})
        said = f"{request.headers['authorization']} {tokens[0]} {password}"
        return httpx.Response(status, json={"detail": said})

    auth = PasswordAuth("gateway", password)
    async with open_http(transport=httpx.MockTransport(echo)) as http:
        client = AirflowClient(http, "http://airflow.test", auth, ManualClock())
        with pytest.raises(TargetError) as raised:
            await (client.trigger("d", "r", {}, None) if method == "POST" else client.run("d", "r"))
    shown = [str(raised.value), repr(raised.value), repr(client), repr(auth), caplog.text]
    shown += traceback.format_exception(raised.value)
    for secret in (*tokens, password):
        assert not [text for text in shown if secret in text]


async def test_the_login_that_fails_never_repeats_what_it_sent() -> None:
    site = Site(PasswordAuth("gateway", "s3cret-password"))
    site.fake.disturb(answer(422, {"detail": "input_value={'password': 's3cret-password'}"}), on="login")
    site.fake.disturb(answer(500, {"detail": "password s3cret-password"}), on="login")
    for _ in range(2):
        with pytest.raises(TargetError) as raised:
            await site.client.dag("d")
        assert "s3cret" not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    "auth", [PasswordAuth("u", "s3cret"), TokenAuth("s3cret")], ids=["user name and password", "token"]
)
def test_what_holds_a_secret_does_not_print_it(auth: Auth) -> None:
    assert "s3cret" not in f"{auth!r} {auth!s}"
