"""What senders and servers wrote reaches a terminal as text: it moves no cursor, hides nothing and forges no line."""

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from typer import Typer
from typer.testing import CliRunner

import app.cli.commands
from app.bootstrap.settings import read_settings
from app.cli.commands import GROUPS
from app.cli.doctor.finding import fail
from app.cli.doctor.report import show as show_findings
from app.cli.main import app as cli
from app.cli.main import main
from app.kit.log import configure
from app.kit.visible import visible
from app.web.main import create_app

HOSTILE = "\x1b[2J\x1b]0;x\x07\x9b31m\u202e\u2066\u200f\u200b\ufeff\x7f\u2028\x85\r\nFORGED"
DOCUMENT: dict[str, Any] = create_app(read_settings(), None).openapi()  # type: ignore[arg-type]  # Its lifespan is not entered.
ID = "01a20967-2119-717a-bc81-761cac4c96d5"
COMMANDS = [
    "effect",
    "explain ID",
    "explain --route accuracy",
    "trigger accuracy --reason x",
    "history alerts",
    "history triggers",
    "history schedules",
    "lineage ID",
    "lineage churn/1",
    "lineage --orphans",
    "promote churn 1",
    "rollback ID",
    "promotions",
    "deadman list",
    "deadman show nightly",
    "deadman pause nightly",
    "deadman resume nightly",
    "deadman forget nightly",
    "receivers test ops",
    "receivers redrive ID",
    "notices",
    "pause accuracy --reason x",
    "pause accuracy --lift",
]


def hostile(value: Any) -> Any:
    """A JSON value with something for a terminal to obey in every text and every name of a label."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, dict):
        return {name: label(item) if name in ("labels", "group") else hostile(item) for name, item in value.items()}
    return [hostile(item) for item in value] if isinstance(value, list) else value


def label(labels: Any) -> Any:
    return hostile(labels) | {f"label{HOSTILE}": HOSTILE} if isinstance(labels, dict) else labels


def example(method: str, path: str) -> Any:
    for pattern, item in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", pattern), path) and method in item:
            good = next(answer for status, answer in item[method]["responses"].items() if status.startswith("2"))
            return whole(good["content"]["application/json"]["example"])
    raise AssertionError(f"{method} {path} is not in the document")


def whole(found: Any) -> Any:
    """An example of the document with the members that examples leave out."""
    left_out = dict.fromkeys(("held_until", "cooldown_until", "resolved", "resolved_at"))
    if isinstance(found, dict):
        added = {"next": "more"} if "items" in found else {}
        return (
            left_out
            | added
            | {name: whole(item) if name not in ("labels", "group") else item for name, item in found.items()}
        )
    return [whole(item) for item in found] if isinstance(found, list) else found


class _Gateway(BaseHTTPRequestHandler):
    status = 200

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        found = (
            example(self.command.lower(), path)
            if self.status == 200
            else {"detail": "no", "title": "no", "status": 404}
        )
        content = json.dumps(hostile(found)).encode()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 (the names of http.server)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Gateway)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def fit_for_a_terminal(text: str) -> bool:
    return text.replace("\n", "").isprintable() and not any(line.startswith("FORGED") for line in text.splitlines())


def names(typer: Typer, before: str = "") -> Iterator[str]:
    for command in typer.registered_commands:
        assert command.callback is not None
        yield before + (command.name or command.callback.__name__)
    for group in typer.registered_groups:
        assert group.typer_instance is not None
        yield from names(group.typer_instance, f"{before}{group.name} ".lstrip())


def test_every_command_that_asks_the_gateway_is_tried() -> None:
    there = {name for group in GROUPS for name in names(group)}
    # Their own tests show what they print of a history.
    replays = {"backtest policy", "backtest sweep", "backtest check", "export"}
    assert {name for name in there if not any(line.startswith(name) for line in COMMANDS)} == replays
    for file in Path(app.cli.commands.__file__).parent.glob("*.py"):
        printed = re.findall(r"print\((?!json\.dumps|visible\()", file.read_text())
        assert not printed, f"{file.name}: use show() or visible()"
        assert "rich.table" not in file.read_text(), f"{file.name}: take Table from app.cli.client"


@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_shows_what_others_wrote_as_text(
    gateway: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, status: int
) -> None:
    monkeypatch.setattr(_Gateway, "status", status)
    for name, value in (("GATEWAY_URL", gateway), ("GATEWAY_TOKEN", ""), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["trigger-gateway", *line.replace("ID", ID).split()])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = "".join(capsys.readouterr())
    assert fit_for_a_terminal(shown), ascii(shown)
    assert ended.value.code in ((1,) if status == 404 or "test" in line else (0, 1))
    assert "\\x1b[2J" in shown or (status == 200 and line in ("deadman forget nightly", "pause accuracy --reason x"))


def test_the_doctor_and_a_log_on_a_terminal_show_it_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    show_findings([fail("airflow", f"it answered {HOSTILE}", f"look at {HOSTILE}")])
    assert fit_for_a_terminal(re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out))

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return False  # Without colours, so that every escape in it is a sender's.

    for as_json in (False, True):
        stream = Terminal()
        configure("info", json=as_json, stream=stream)
        logging.getLogger("a").warning("alert %s", HOSTILE, extra={"labels": {HOSTILE: HOSTILE}, "alert": HOSTILE})
        assert fit_for_a_terminal(stream.getvalue().replace("\x7f", "")), ascii(stream.getvalue())


def test_the_errors_of_a_policy_show_it_as_text(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        'version: 1\n"a\\e[2J\\r\\nFORGED\u202e\u009b": 1\nroutes:\n  - {name: "\\e[2J\u202e", match: ["\\e["]}\n'
    )
    result = CliRunner().invoke(cli, ["check", str(policy)])
    assert result.exit_code == 1
    assert fit_for_a_terminal(result.output), ascii(result.output)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red] é 漢字 😀", "plain [red] é 漢字 😀"),
        ("\x1b[2J\x07\x00", "\\x1b[2J\\x07\\x00"),
        ("\x9b\x85\x7f", "\\x9b\\x85\\x7f"),
        ("\u202eabc\u2069\u200b\u2028", "\\u202eabc\\u2069\\u200b\\u2028"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\udc80\U000e0041", "\\udc80\\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(text, keep=text) == text
