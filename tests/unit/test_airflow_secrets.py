"""Tokens that are handed to us, in the policy or in a file, and secrets that are told to nobody."""

import logging
import os
import traceback
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.kit.airflow.client import AirflowClient, Auth, PasswordAuth, TokenAuth, TokenFileAuth
from app.kit.errors import LEFT_OUT, Refused, TargetError, Unreachable
from app.kit.http import open_http
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
        detail = f"{request.headers['authorization']} {tokens[0]} {password}"
        return httpx.Response(status, json={"detail": detail})

    auth = PasswordAuth("gateway", password)
    async with open_http(transport=httpx.MockTransport(echo)) as http:
        client = AirflowClient(http, "http://airflow.test", auth, ManualClock())
        with pytest.raises(TargetError) as raised:
            await (client.trigger("d", "r", {}, None) if method == "POST" else client.run("d", "r"))
    shown = [str(raised.value), repr(raised.value), repr(client), repr(auth), caplog.text]
    shown += traceback.format_exception(raised.value)
    for secret in (*tokens, password):
        assert not [text for text in shown if secret in text]


def echo(detail: str, status: int = 409) -> httpx.MockTransport:
    """An Airflow that gives out a token and answers everything else with `said`."""

    def answered(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "a-token-of-airflow"})
        return httpx.Response(status, json={"detail": detail})

    return httpx.MockTransport(answered)


WORDS = "DAG run run already exists in /opt/airflow/dags"


@pytest.mark.parametrize(
    ("api", "auth"),
    [
        ("v2", PasswordAuth("gateway", "run")),
        ("v2", PasswordAuth("airflow", "airflow")),
        ("v1", PasswordAuth("airflow", "airflow")),
        ("v2", TokenAuth("dags")),
    ],
    ids=["a word", "Airflow's own", "Airflow 2's own", "a token"],
)
async def test_a_secret_that_is_a_common_word_makes_no_hole_in_any_sentence(api: Any, auth: Auth) -> None:
    async with open_http(transport=echo(WORDS)) as http:
        client = AirflowClient(http, "http://airflow.test", auth, ManualClock(), api=api)
        with pytest.raises(TargetError) as raised:
            await client.trigger("run", "r", {}, None)
    assert str(raised.value) == f"Airflow answered 409 to the trigger of DAG 'run': {WORDS}"


@pytest.mark.parametrize(
    ("api", "auth", "detail"),
    [
        ("v1", PasswordAuth("airflow", "airflow"), "bad login airflow:airflow"),
        ("v1", PasswordAuth("airflow", "airflow"), "Basic YWlyZmxvdzphaXJmbG93 is none"),
        ("v1", PasswordAuth("airflow", "sesame-open"), "no user with password sesame-open"),
        ("v2", TokenAuth("run"), "header Authorization: Bearer run"),
        ("v2", PasswordAuth("gateway", "run"), "Bearer a-token-of-airflow"),
        ("v2", PasswordAuth("gateway", "run"), f"{'x' * 490} a-token-of-airflow"),
    ],
    ids=["login", "base64", "password", "short token", "token", "token that is cut"],
)
async def test_words_that_repeat_a_secret_are_left_out_and_ours_around_them_stay(
    api: Any, auth: Auth, detail: str
) -> None:
    async with open_http(transport=echo(detail)) as http:
        client = AirflowClient(http, "http://airflow.test", auth, ManualClock(), api=api)
        with pytest.raises(TargetError) as raised:
            await client.trigger("run", "r", {}, None)
    assert str(raised.value) == f"Airflow answered 409 to the trigger of DAG 'run': {LEFT_OUT}"


async def test_words_that_are_left_out_do_not_change_what_an_answer_means() -> None:
    async with open_http(transport=echo("an import error: sesame-open", 400)) as http:
        auth = PasswordAuth("gateway", "sesame-open")
        client = AirflowClient(http, "http://airflow.test", auth, ManualClock(), api="v1")
        with pytest.raises(Refused) as raised:
            await client.trigger("d", "r", {}, None)
    assert (raised.value.code, LEFT_OUT in raised.value.detail) == ("bad_request", True)


async def test_the_login_that_fails_never_repeats_what_it_sent() -> None:
    site = Site(PasswordAuth("gateway", "s3cret-password"))
    site.fake.disturb(answer(422, {"detail": "input_value={'password': 's3cret-password'}"}), on="login")
    site.fake.disturb(answer(500, {"detail": "password s3cret-password"}), on="login")
    for _ in range(2):
        with pytest.raises(TargetError) as raised:
            await site.client.dag("d")
        assert "s3cret" not in "".join(traceback.format_exception(raised.value))
    site = Site(PasswordAuth("gateway", "abc"))
    site.fake.disturb(answer(500, {"detail": "password abc"}), on="login")
    with pytest.raises(Unreachable, match=r"^Airflow answered 500 to the login$"):
        await site.client.dag("d")


@pytest.mark.parametrize(
    "auth", [PasswordAuth("u", "s3cret"), TokenAuth("s3cret")], ids=["user name and password", "token"]
)
def test_what_holds_a_secret_does_not_print_it(auth: Auth) -> None:
    assert "s3cret" not in f"{auth!r} {auth!s}"
