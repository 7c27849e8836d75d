"""One line an event, whoever logs it, and never a secret in it."""

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
import structlog

from app.kit import log
from app.kit.errors import UsageError
from app.kit.log import configure, redact, scrub

TOKEN = "tg_" + "aB3-_" * 8 + "xyz"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is the process's: hand it back as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    logging.captureWarnings(False)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "speak",
    [
        pytest.param(lambda: logging.getLogger("app.x").warning("3 %s", "runs", extra={"n": 3}), id="standard library"),
        pytest.param(lambda: structlog.get_logger("app.x").warning("3 runs", n=3), id="structlog"),
        pytest.param(lambda: structlog.get_logger("app.x").warning("3 %s", "runs", n=3), id="structlog, positional"),
    ],
)
def test_an_event_is_one_json_line_with_its_fields(speak: Callable[[], None]) -> None:
    stream = io.StringIO()
    configure("info", True, stream)
    with structlog.contextvars.bound_contextvars(trigger_id="t-1"):
        speak()
    (event,) = lines(stream)
    time = event.pop("time")
    assert event == {"event": "3 runs", "level": "warning", "logger": "app.x", "n": 3, "trigger_id": "t-1"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time)
    assert abs((datetime.fromisoformat(time) - datetime.now(UTC)).total_seconds()) < 60


@pytest.mark.parametrize("name", ["uvicorn", "uvicorn.error", "uvicorn.access", "anything.else"])
def test_the_servers_own_loggers_end_in_the_same_place(name: str) -> None:
    stream = io.StringIO()
    own = logging.StreamHandler(io.StringIO())
    logging.getLogger(name).addHandler(own)
    logging.getLogger(name).propagate = not name.startswith("uvicorn")
    try:
        configure("info", True, stream)
        logging.getLogger(name).info("hello", extra={"color_message": "\x1b[1mhello"})
    finally:
        logging.getLogger(name).removeHandler(own)
    assert [(event["logger"], "color_message" in event) for event in lines(stream)] == [(name, False)]


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
@pytest.mark.parametrize("get_logger", [logging.getLogger, structlog.get_logger], ids=["standard", "structlog"])
def test_the_level_says_what_is_heard(level: str, heard: list[str], get_logger: Callable[[str], Any]) -> None:
    stream = io.StringIO()
    configure(level, True, stream)
    for method in log.LEVELS:
        getattr(get_logger("app"), method)("event")
    assert [event["level"] for event in lines(stream)] == heard


def test_an_unknown_level_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="log level 'loud': use one of debug, info, warning, error"):
        configure("loud")


class _Site(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Set-Cookie", "session=cookie-of-a-session")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_the_libraries_show_no_path_no_header_and_no_cookie_at_the_level_debug() -> None:
    """Their own lines know nothing of our secrets."""
    secrets = ("path-of-a-webhook", "key-of-a-query", "cookie-of-a-session", "value-of-a-header")
    stream = io.StringIO()
    configure("debug", True, stream)
    with HTTPServer(("127.0.0.1", 0), _Site) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/services/{secrets[0]}?key={secrets[1]}"
        with httpx.Client() as client:
            for _ in range(2):
                client.get(url, headers={"X-Any": secrets[3]})
        server.shutdown()
    shown = stream.getvalue()
    assert "HTTP Request: GET http://127.0.0.1:" in shown
    assert not [secret for secret in secrets if secret in shown], shown


def test_the_clients_line_for_each_request_is_heard_in_debug_only() -> None:
    for level, heard in (("info", 0), ("debug", 1), ("info", 0)):
        stream = io.StringIO()
        configure(level, True, stream)
        logging.getLogger("httpx").info("HTTP Request: GET http://airflow/")
        assert len(lines(stream)) == heard


@pytest.mark.parametrize(
    ("stream", "choice", "is_json"),
    [
        pytest.param(io.StringIO(), None, True, id="a pipe"),
        pytest.param(Terminal(), None, False, id="a terminal"),
        pytest.param(Terminal(), True, True, id="a terminal, JSON wanted"),
        pytest.param(io.StringIO(), False, False, id="a pipe, text wanted"),
    ],
)
def test_a_person_gets_text_and_a_machine_json(stream: io.StringIO, choice: bool | None, is_json: bool) -> None:
    configure("info", choice, stream)
    logging.getLogger("app").info("hello")
    assert stream.getvalue().startswith("{") is is_json
    assert "hello" in stream.getvalue()
    if not stream.isatty():
        assert "\x1b" not in stream.getvalue()


def test_without_a_stream_stdout_stays_free_for_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    logging.getLogger("app").info("hello")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "hello"


def test_a_second_call_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("info", True, first)
    configure("info", True, second)
    logging.getLogger("app").info("hello")
    assert (len(lines(first)), len(lines(second))) == (0, 1)


def test_warnings_are_events() -> None:
    stream = io.StringIO()
    configure("info", True, stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old way", UserWarning, stacklevel=1)
    assert "old way" in lines(stream)[0]["event"]


def test_the_copy_of_a_fault_that_was_told_is_dropped() -> None:
    stream = io.StringIO()
    configure("info", True, stream)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n")
    logging.getLogger("uvicorn.error").error("Another one")
    assert [event["event"] for event in lines(stream)] == ["Another one"]


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
@pytest.mark.parametrize("get_logger", [logging.getLogger, structlog.get_logger], ids=["standard", "structlog"])
def test_a_traceback_tells_the_fault_without_secrets_and_variables(
    as_json: bool, get_logger: Callable[[str], Any]
) -> None:
    stream = io.StringIO()
    configure("info", as_json, stream)
    hidden = "variable-of-the-frame"
    try:
        raise RuntimeError(f"cannot connect to postgresql://gateway:hunter2@db:5432/gateway ({len(hidden)})")
    except RuntimeError:
        get_logger("app").exception("failed")
    text = stream.getvalue()
    assert "RuntimeError: cannot connect to postgresql://***@db:5432/gateway" in text
    assert "hunter2" not in text
    assert sys._getframe().f_code.co_name in text
    assert text.count("variable-of-the-frame") == 0


@pytest.mark.parametrize(
    "name",
    [
        "password", "PASSWORD", "airflow_password", "passwd", "passphrase", "token", "access_token", "secret",
        "clientSecret", "authorization", "Authorization", "routing_key", "routingKey", "api_key", "apiKey", "X-Api-Key",
        "private_key", "credentials", "cookie", "Set-Cookie",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["hunter2", 1234, ["hunter2"], {"inner": "hunter2"}, b"hunter2"], ids=repr)
def test_a_value_under_the_name_of_a_secret_is_masked(name: str, value: object) -> None:
    assert redact(None, "info", {name: value}) == {name: "***"}
    assert redact(None, "info", {"outer": [{name: value}]}) == {"outer": [{name: "***"}]}


@pytest.mark.parametrize(
    "name", ["token_name", "tokens_file", "idempotency_key", "group_key", "passed", "secretary", "key", "monkey"]
)
def test_a_value_under_another_name_stays(name: str) -> None:
    assert redact(None, "info", {name: "value"}) == {name: "value"}


def test_that_a_secret_is_unset_may_be_said() -> None:
    assert redact(None, "info", {"password": None, "token": False}) == {"password": None, "token": False}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param(f"token {TOKEN}.", "token tg_***.", id="our token"),
        pytest.param(f"GET /ping/x?key={TOKEN}&a=1", "GET /ping/x?key=***&a=1", id="our token in a query"),
        pytest.param("/ping/x?rid=1&key=abc HTTP/1.1", "/ping/x?rid=1&key=*** HTTP/1.1", id="any key in a query"),
        pytest.param("redis://:pw@cache:6379/0", "redis://***@cache:6379/0", id="a password without a user"),
        pytest.param("postgresql://u:p@ss@db/x", "postgresql://***@db/x", id="an @ in the password"),
        pytest.param("https://ghp_abc@github.com/a", "https://***@github.com/a", id="a token as the user"),
        pytest.param("two: a://b:c@d and e://f:g@h", "two: a://***@d and e://***@h", id="two URLs"),
        pytest.param("Authorization: Bearer abc.def-ghi_jkl", "Authorization: Bearer ***", id="a bearer header"),
        pytest.param("authorization: basic Zm9vOmJhcg==", "authorization: basic ***", id="a basic header"),
        pytest.param("GenieKey 0123-4567-89ab", "GenieKey ***", id="an Opsgenie key"),
        pytest.param(
            "https://hooks.slack.com/services/T0/B0/xyz", "https://hooks.slack.com/services/***", id="a Slack hook"
        ),
        pytest.param("http://prometheus:9090/api", "http://prometheus:9090/api", id="a URL without a user"),
        pytest.param("mail to ops@example.com", "mail to ops@example.com", id="a mail address"),
        pytest.param("the bearer of bad news", "the bearer of bad news", id="a word that is no header"),
        pytest.param("tg_short", "tg_short", id="too short for a token"),
        pytest.param('Bearer error="invalid_token"', 'Bearer error="invalid_token"', id="a challenge"),
    ],
)
def test_secrets_inside_any_text_are_scrubbed(text: str, shown: str) -> None:
    assert scrub(text) == shown
    assert redact(None, "info", {"event": text, "deep": [{"er": (text,)}]}) == {
        "event": shown,
        "deep": [{"er": [shown]}],
    }


def test_an_object_is_scrubbed_as_the_text_that_is_shown() -> None:
    event = redact(None, "info", {"error": OSError("redis://:pw@h"), "at": datetime(2026, 11, 23, tzinfo=UTC)})
    assert event == {"error": "OSError('redis://***@h')", "at": "2026-11-23T00:00:00Z"}


def test_a_value_that_json_does_not_know_is_still_one_line() -> None:
    stream = io.StringIO()
    configure("info", True, stream)
    endless: list[Any] = []
    endless.append(endless)
    values = {"nan": float("nan"), "key": {1: {2}}, "bytes": b"\xff", "endless": endless, "lone": "\ud800"}
    logging.getLogger("app").info("odd\nnews", extra=values)
    (event,) = lines(stream)
    assert (event["event"], event["nan"], event["key"], event["bytes"]) == ("odd\nnews", "nan", {"1": [2]}, "b'\\xff'")
