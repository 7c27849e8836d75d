"""What answers of MLflow mean, and those of everybody who is not MLflow; how it is asked, and with which login."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.kit.access import Access
from app.kit.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.kit.http import open_http
from app.kit.mlflow.answers import metrics_of, params_of, quoted, tags_of
from app.kit.mlflow.client import Mlflow
from app.lineage.mlflow_client import MlflowOf
from app.policy.file.load import parse_policy
from app.policy.schema import Policy
from tests.cores import core_of
from tests.fakes.clock import ManualClock
from tests.fakes.faults import answer
from tests.fakes.mlflow_registry import FakeMlflowRegistry

POLICY = "version: 1\nairflow: [{name: a, url: http://a}]\nroutes: []\n"


class Wire(httpx.AsyncBaseTransport):
    """Answers every request alike, or fails it, and keeps what was asked."""

    def __init__(self, status: int = 200, body: Any = None, error: Exception | None = None, **headers: str) -> None:
        self.asked: list[httpx.Request] = []
        self._status, self._body, self._error, self._headers = status, body, error, headers

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        if self._error is not None:
            raise self._error
        headers = {name.replace("_", "-"): value for name, value in self._headers.items()}
        if isinstance(self._body, str):
            return httpx.Response(self._status, text=self._body, headers=headers)
        return httpx.Response(self._status, json={} if self._body is None else self._body, headers=headers)


def mlflow(wire: Wire, login: Access | None = None) -> Mlflow:
    return Mlflow(open_http(transport=wire), "http://mlflow.test:5000/", login, clock=ManualClock())


def error(code: str, message: str = "no") -> dict[str, str]:
    return {"error_code": code, "message": message}


ANSWERS: list[tuple[int, Any, str, type[TargetError], type[TargetError]]] = [
    # status, body, code, what it is for a read, what it is for a write
    (401, "", "token_rejected", Refused, Refused),
    (403, error("PERMISSION_DENIED"), "forbidden", Refused, Refused),
    (429, "", "busy", Unreachable, Unreachable),
    (500, error("INTERNAL_ERROR"), "server_error", Unreachable, Ambiguous),
    (503, error("TEMPORARILY_UNAVAILABLE"), "server_error", Unreachable, Ambiguous),
    (408, "", "server_error", Unreachable, Ambiguous),
    (404, error("RESOURCE_DOES_NOT_EXIST"), "missing", Rejected, Rejected),
    (400, error("RESOURCE_ALREADY_EXISTS"), "exists", Rejected, Rejected),
    (400, error("INVALID_PARAMETER_VALUE"), "bad_request", Rejected, Rejected),
    (404, error("ENDPOINT_NOT_FOUND"), "bad_request", Rejected, Rejected),
    (404, "<html>", "not_mlflow", Refused, Refused),
    (302, "", "not_mlflow", Refused, Refused),
    (400, {"detail": "?"}, "not_mlflow", Refused, Refused),
    (200, "<html>", "not_mlflow", Refused, Ambiguous),
    (200, [1], "not_mlflow", Refused, Ambiguous),
]


@pytest.mark.parametrize(("status", "body", "code", "read", "write"), ANSWERS)
async def test_each_answer_has_one_meaning(
    status: int, body: Any, code: str, read: type[TargetError], write: type[TargetError]
) -> None:
    for call, kind in [
        (mlflow(Wire(status, body)).call("GET", "runs/get", params={"run_id": "1"}), read),
        (mlflow(Wire(status, body)).call("POST", "runs/search", {}, read=True), read),
        (mlflow(Wire(status, body)).call("POST", "runs/set-tag", {}), write),
        (mlflow(Wire(status, body)).call("DELETE", "registered-models/alias", {}), write),
    ]:
        with pytest.raises(TargetError) as raised:
            await call
        assert (type(raised.value), raised.value.code) == (kind, code)


async def test_no_answer_to_a_write_is_ambiguous_and_to_a_read_is_not_even_when_it_is_posted() -> None:
    wire = Wire(error=httpx.ReadTimeout(""))
    with pytest.raises(Ambiguous):
        await mlflow(wire).tag_run("r", "k", "v")
    for read in (mlflow(wire).run("r"), mlflow(wire).experiments()):
        with pytest.raises(Unreachable):
            await read
    assert len(wire.asked) == 3  # each once: repeating is the caller's decision


@pytest.mark.parametrize(
    "message",
    ["duplicate key\n[SQL: INSERT INTO x VALUES ('hunter2')]", "failed [SQL: hunter2]", "no (Background on hunter2)"],
)
async def test_a_message_is_told_without_the_statement_that_it_leaks(message: str) -> None:
    with pytest.raises(Unreachable) as raised:
        await mlflow(Wire(500, error("INTERNAL_ERROR", message))).run("r")
    assert "hunter2" not in raised.value.detail


async def test_retry_after_is_kept() -> None:
    with pytest.raises(Unreachable) as raised:
        await mlflow(Wire(503, "", Retry_After="7")).run("r")
    assert raised.value.retry_after == 7.0


@pytest.mark.parametrize("body", [{}, {"run": []}, {"run": None}])
async def test_an_object_without_what_was_asked_for_is_not_mlflow(body: dict[str, Any]) -> None:
    with pytest.raises(Refused) as raised:
        await mlflow(Wire(200, body)).run("r")
    assert raised.value.code == "not_mlflow"


async def test_each_kind_of_login_is_sent_and_none_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    basic = "Basic " + base64.b64encode(b"ana:s3cret").decode()
    logins: Mapping[str, Access] = {
        basic: Access(username="ana", password="s3cret"),
        "Bearer t0ken": Access(token="t0ken"),
        "Bearer from-file": Access(token_file=file),
        "": Access(),
    }
    for sent, login in logins.items():
        wire = Wire(200, {"run": {}})
        await mlflow(wire, login).run("r")
        assert wire.asked[0].headers.get("authorization", "") == sent
        assert "s3cret" not in repr(login)
        assert "t0ken" not in repr(login)
    file.unlink()
    with pytest.raises(Refused) as raised:
        await mlflow(wire, Access(token_file=file)).run("r")
    assert raised.value.code == "token_file"


@pytest.mark.parametrize("login", [Access(token="a-long-token"), Access("ana", "s3cret"), Access("ana", "long-s3cret")])
async def test_what_mlflow_says_of_our_login_is_not_repeated(login: Access) -> None:
    answers = {login.sent()["Authorization"]: False, "a word of its own": True}
    answers |= {f"{login.username}:{login.password}": False} if login.username else {}
    for words, repeated in answers.items():
        with pytest.raises(TargetError) as raised:
            await mlflow(Wire(400, {"error_code": "BAD", "message": f"I got {words}"}), login).run("r")
        assert (words in raised.value.detail) is repeated


async def test_a_path_has_no_part_that_climbs() -> None:
    wire = Wire(200, {"model": {}})
    await mlflow(wire).logged_model("../../x?y")
    assert wire.asked[0].url.raw_path == b"/api/2.0/mlflow/logged-models/..%2F..%2Fx%3Fy"


def test_odd_pairs_and_numbers_are_left_out() -> None:
    odd: dict[str, Any] = {"tags": [{"key": "a", "value": "1"}, {"key": 2}, "x", {"key": "b"}]}
    assert tags_of(odd) == {"a": "1", "b": ""}
    assert tags_of({}) == {}
    assert params_of({"data": None}) == {}
    run = {"data": {"metrics": [{"key": "a", "value": "Infinity"}, {"key": "b", "value": "x"}, {"value": 1}]}}
    assert metrics_of(run) == {"a": float("inf")}


def test_a_value_in_a_filter_is_quoted_by_what_it_does_not_hold() -> None:
    assert quoted("it's") == '"it\'s"'
    assert quoted('a "b"') == "'a \"b\"'"
    with pytest.raises(Rejected):
        quoted("'\"")


def test_a_reload_makes_a_new_client_only_when_its_entry_changed() -> None:
    def policy(more: str) -> Policy:
        return parse_policy(POLICY + more, "p.yaml", {})

    core = core_of(policy(""))
    of = MlflowOf(core, open_http(transport=Wire()))
    assert of() is None
    core.policies.take(policy("mlflow: {tracking_uri: http://m:5000}\n"), core.clock.now())
    first = of()
    assert first is not None
    assert (first.url, of()) == ("http://m:5000", first)
    core.policies.take(policy("mlflow: {tracking_uri: http://m:5000}\n# the same\n"), core.clock.now())
    assert of() is first
    core.policies.take(policy("mlflow: {tracking_uri: http://m:5000, auth: {token: x}}\n"), core.clock.now())
    assert of() is not first


async def test_the_login_of_the_policy_is_the_one_that_is_sent(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("c")
    logins = {"{username: a, password: b}": "Basic YTpi", "{token: b}": "Bearer b"}
    for auth, sent in (logins | {f"{{token_file: {tmp_path / 't'}}}": "Bearer c"}).items():
        wire = Wire(200, json.loads('{"run": {}}'))
        read = parse_policy(f"{POLICY}mlflow: {{tracking_uri: http://m, auth: {auth}}}", "p.yaml", {})
        client = MlflowOf(core_of(read), open_http(transport=wire))()
        assert client is not None
        await client.run("r")
        assert (wire.asked[0].url.host, wire.asked[0].headers["authorization"]) == ("m", sent)


@pytest.mark.parametrize(
    "message", ["Registered model alias champion not found.", "El alias no existe", "", "alias other not found"]
)
@pytest.mark.parametrize("aliases", [{}, {("churn", "staging"): "1"}], ids=["no alias", "another alias"])
async def test_the_model_shows_that_nothing_holds_an_alias_whatever_the_words(
    message: str, aliases: dict[tuple[str, str], str]
) -> None:
    fake = FakeMlflowRegistry(ManualClock())
    fake.add("churn", {"f1": 0.9})
    fake.aliases |= aliases
    fake.disturb(answer(400, error("INVALID_PARAMETER_VALUE", message)), on="GET registered-models/alias")
    async with open_http(transport=fake.transport()) as http:
        assert await Mlflow(http, fake.url, clock=ManualClock()).holder("churn", "champion") is None


async def test_an_alias_that_was_set_meanwhile_is_held() -> None:
    fake = FakeMlflowRegistry(ManualClock())
    fake.aliases["churn", "champion"] = fake.add("churn", {"f1": 0.9})
    words = error("INVALID_PARAMETER_VALUE", "Registered model alias champion not found.")
    fake.disturb(answer(400, words), on="GET registered-models/alias")
    async with open_http(transport=fake.transport()) as http:
        held = await Mlflow(http, fake.url, clock=ManualClock()).holder("churn", "champion")
    assert held is not None
    assert held["version"] == "1"


async def test_an_alias_of_no_model_is_held_by_nobody() -> None:
    fake = FakeMlflowRegistry(ManualClock())
    async with open_http(transport=fake.transport()) as http:
        assert await Mlflow(http, fake.url, clock=ManualClock()).holder("churn", "champion") is None
