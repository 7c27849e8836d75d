"""How the gateway gets into each server of the policy: its login, `headers` and a `ca_file`, which it never shows."""

import base64
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.cli.doctor.airflow import Patient, examine_airflow
from app.cli.doctor.mlflow import examine_mlflow
from app.cli.doctor.prometheus import examine_prometheus
from app.cli.doctor.receivers import examine_receivers
from app.deliver.airflows import airflow_client
from app.groups.prometheus import Prometheus
from app.kit.access import Access
from app.kit.errors import GatewayError, Refused
from app.kit.http import Http, open_http
from app.lineage.mlflow_client import mlflow_client
from app.notices.receivers.send import Sender
from app.policy.file.load import parse_policy
from app.policy.file.problems import PolicyError
from app.policy.schema import Policy
from tests.fakes.clock import ManualClock
from tests.unit.test_receivers import PLAIN, SECRET

CLOCK = ManualClock()
Call = Callable[[Policy, Http], Awaitable[object]]


def patient(policy: Policy, http: Http) -> Patient:
    client = airflow_client(policy.airflow[0], http, CLOCK)
    return Patient(policy.airflow[0], client, policy.routes, {}, has_login=True)


def send(policy: Policy, http: Http) -> Awaitable[object]:
    return Sender(http, CLOCK).send(policy.receivers[0], PLAIN)


def ask(policy: Policy, http: Http) -> Awaitable[object]:
    confirm = policy.routes[0].confirm
    assert confirm
    return Prometheus(http, CLOCK).ask(confirm, "up")


def mlflow(policy: Policy, http: Http) -> Awaitable[object]:
    assert policy.mlflow
    return mlflow_client(policy.mlflow, http, CLOCK).run("r")


def doctor_of_mlflow(policy: Policy, http: Http) -> Awaitable[object]:
    assert policy.mlflow
    return examine_mlflow(policy.mlflow, http, CLOCK, has_login=True)


#: By what makes the requests: the entry of the policy whose server gets them, and the call.
CALLS: dict[str, tuple[str, Call]] = {
    "Airflow's client": ("airflow", lambda policy, http: airflow_client(policy.airflow[0], http, CLOCK).dag("retrain")),
    "Airflow's health": ("airflow", lambda policy, http: airflow_client(policy.airflow[0], http, CLOCK).health()),
    "Airflow's doctor": ("airflow", lambda policy, http: examine_airflow(patient(policy, http), http, CLOCK)),
    "confirm": ("confirm", ask),
    "confirm's doctor": ("confirm", lambda policy, http: examine_prometheus(policy, http, CLOCK, has_login=True)),
    "MLflow's client": ("mlflow", mlflow),
    "MLflow's doctor": ("mlflow", doctor_of_mlflow),
    **{f"a notice to {kind}": (kind, send) for kind in ("slack", "webhook", "alertmanager")},
    **{
        f"the doctor of {kind}": (kind, lambda policy, http: examine_receivers(policy, http, has_secrets=True))
        for kind in ("slack", "webhook", "alertmanager")
    },
}
each = pytest.mark.parametrize("name", CALLS)
#: Slack takes no login, and Airflow tells its health without one.
WITHOUT_LOGIN = {"a notice to slack", "the doctor of slack", "Airflow's health"}
with_login = pytest.mark.parametrize("name", [name for name in CALLS if name not in WITHOUT_LOGIN])


def policy_with(entry: str, env: dict[str, str] | None = None, **keys: Any) -> Policy:
    """A policy in which one entry has these keys."""
    airflow: dict[str, Any] = {"name": "default", "url": "http://airflow.test"}
    confirm: dict[str, Any] = {"prometheus": "http://prometheus.test", "query": "up"}
    tracking: dict[str, Any] = {"tracking_uri": "http://mlflow.test"}
    kinds: dict[str, dict[str, Any]] = {
        "slack": {"url": "http://slack.test/hook"},
        "webhook": {"url": "http://hook.test", "secret": SECRET},
        "alertmanager": {"url": "http://alertmanager.test"},
    }
    {"airflow": airflow, "confirm": confirm, "mlflow": tracking, **kinds}[entry].update(keys)
    kind = entry if entry in kinds else "slack"
    text = yaml.safe_dump(
        {
            "version": 1,
            "airflow": [airflow],
            "routes": [{"name": "accuracy", "match": [], "confirm": confirm, "dag": {"id": "retrain"}}],
            "mlflow": tracking,
            "receivers": [{"name": "people", kind: kinds[kind]}],
        }
    )
    return parse_policy(text, "p.yaml", env or {})


class Wire(httpx.MockTransport):
    """Answers as the tests need, and keeps the headers of each request."""

    def __init__(self, status: int = 200, words: Callable[[], str] = str) -> None:
        self.asked: list[httpx.Headers] = []
        super().__init__(self._answer)
        self._status, self._words = status, words

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.headers)
        words = self._words()
        body = {"detail": words, "error": words, "message": words, "error_code": "BAD"}
        health = {part: {"status": "healthy"} for part in ("metadatabase", "scheduler", "dag_processor")}
        if request.url.path.endswith("/health"):
            return httpx.Response(200, json=health)
        return httpx.Response(self._status, json=body)


async def made(name: str, wire: Wire, env: dict[str, str] | None = None, **keys: Any) -> str:
    """Make the call. Returns everything that it says: what it returns, or its error."""
    entry, call = CALLS[name]
    async with open_http(transport=wire) as http:
        try:
            return repr(await call(policy_with(entry, env, **keys), http))
        except GatewayError as error:
            return f"{error!r} {error}"


@each
async def test_the_headers_of_an_entry_go_with_every_request(name: str) -> None:
    wire = Wire()
    headers = {"X-Scope-OrgID": "${TENANT}", "proxy-authorization": "Bearer outer"}
    await made(name, wire, {"TENANT": "team-ml"}, headers=headers)
    assert wire.asked
    for sent in wire.asked:
        assert (sent["x-scope-orgid"], sent["proxy-authorization"]) == ("team-ml", "Bearer outer")


@with_login
async def test_each_kind_of_login_is_sent(name: str, tmp_path: Path) -> None:
    entry, _ = CALLS[name]
    file = tmp_path / "token"
    file.write_text("from-file\n")
    basic = base64.b64encode(b"ana:s3cret").decode()
    logins: dict[str, dict[str, str]] = {
        "Bearer t0ken": {"token": "t0ken"},
        "Bearer from-file": {"token_file": str(file)},
    }
    if entry != "airflow":  # Airflow 3 gives a token for the password: tests/unit/test_airflow_tokens.py.
        logins[f"Basic {basic}"] = {"username": "ana", "password": "s3cret"}
    for expected, auth in logins.items():
        wire = Wire()
        await made(name, wire, auth=auth)
        assert expected in {sent.get("authorization") for sent in wire.asked}
    wire = Wire()
    await made(name, wire)
    assert {sent.get("authorization") for sent in wire.asked} == {None}


@with_login
async def test_a_token_file_that_rotates_counts_at_once(name: str, tmp_path: Path) -> None:
    entry, call = CALLS[name]
    file = tmp_path / "token"
    wire = Wire()
    async with open_http(transport=wire) as http:
        policy = policy_with(entry, auth={"token_file": str(file)})
        for token in ("first", "second-one"):
            file.write_text(token)
            with suppress(GatewayError):
                await call(policy, http)
            assert f"Bearer {token}" in {sent.get("authorization") for sent in wire.asked}


@each
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
async def test_no_error_repeats_what_an_entry_sends(name: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a-token-of-a-file")
    keys: dict[str, Any] = {"headers": {"X-Key": "a-secret-header"}}
    if CALLS[name][0] != "slack":
        keys["auth"] = {"token_file": str(tmp_path / "token")}
    result = await made(name, Wire(status, lambda: "I got a-secret-header and a-token-of-a-file"), **keys)
    assert "a-secret-header" not in result
    assert "a-token-of-a-file" not in result
    policy = policy_with(CALLS[name][0], **keys)
    assert "a-secret-header" not in repr(policy) + policy.model_dump_json(), "GET /api/v1/routes shows a dump"
    rotates = Wire(status, lambda: f"no more {(tmp_path / 'token').write_text('new')} a-token-of-a-file")
    if "auth" in keys and "doctor" not in name:
        assert "a-token-of-a-file" not in await made(name, rotates, **keys), "the file changed while it was asked"


@each
@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "No such file or directory"), ("no certificate", "holds no certificates in PEM"), ("", "PEM")],
)
async def test_a_ca_file_that_cannot_be_used_is_named_and_nothing_is_sent(
    name: str, content: str | None, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    wire = Wire()
    result = await made(name, wire, ca_file=str(file))
    assert wire.asked == []
    assert str(file) in result
    assert why in result


@with_login
@pytest.mark.parametrize(
    ("content", "code"), [(None, "token_file"), ("two words", "token_rejected"), ("é", "token_rejected")]
)
async def test_a_token_file_that_holds_no_token_is_named_and_nothing_is_sent(
    name: str, content: str | None, code: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Refused) as raised:
        Access(token_file=file).sent()
    assert (raised.value.code, str(file) in raised.value.detail) == (code, True)
    wire = Wire()
    result = await made(name, wire, auth={"token_file": str(file)})
    assert str(file) in result
    assert {sent.get("authorization") for sent in wire.asked} <= {None}, "Airflow's health needs no login"


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"headers": {"X Tenant": "a"}}, "headers.X Tenant: is no name of a header, such as X-Scope-OrgID"),
    ({"headers": {"Host": "a"}}, "headers.Host: the gateway writes this header itself"),
    ({"headers": {"Content-Length": "1"}}, "headers.Content-Length: the gateway writes this header itself"),
    (
        {"headers": {"X-A": "two\nlines"}},
        "headers.X-A: must be printable ASCII on one line, without spaces at its ends",
    ),
    ({"headers": {"X-A": "é"}}, "headers.X-A: must be printable ASCII on one line, without spaces at its ends"),
    ({"headers": {"X-A": 5}}, "headers.X-A: must be text; put a number or true in quotes if it is meant as text"),
    ({"headers": {"X-A": None}}, "headers.X-A: is empty; give it a value or leave the key out"),
    ({"headers": {"X-A": "a", "x-a": "b"}}, "headers: a header is here twice; upper and lower case are the same"),
    ({"headers": ["X-A: a"]}, "headers: must be a mapping"),
    ({"ca_file": ""}, "ca_file: must not be empty"),
]
PATHS = {"airflow": "airflow.0", "confirm": "routes.0.confirm", "mlflow": "mlflow"}
PATHS |= {kind: f"receivers.0.{kind}" for kind in ("slack", "webhook", "alertmanager")}


@pytest.mark.parametrize("entry", PATHS)
@pytest.mark.parametrize(("keys", "problem"), MISTAKES)
def test_a_mistake_in_an_entry_is_named_at_its_place(entry: str, keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(PolicyError) as raised:
        policy_with(entry, **keys)
    [found] = raised.value.problems
    assert f"{found.path}: {found.message}" == f"{PATHS[entry]}.{problem}"


@pytest.mark.parametrize("entry", [entry for entry in PATHS if entry != "slack"])
def test_a_login_stands_in_one_place(entry: str) -> None:
    for keys in ({"auth": {"token": "t"}, "headers": {"authorization": "Bearer a-secret"}}, {"auth": {"tokn": "t"}}):
        with pytest.raises(PolicyError) as raised:
            policy_with(entry, **keys)
        assert "a-secret" not in str(raised.value)


@pytest.mark.parametrize("entry", PATHS)
def test_a_value_of_a_header_is_not_known_by_the_hash_nor_by_an_error(entry: str) -> None:
    before, after = (policy_with(entry, headers={"X-Key": value}) for value in ("a-secret-header", "another-one"))
    assert before.hash == after.hash
    assert before.hash != policy_with(entry).hash
    with pytest.raises(PolicyError) as raised:
        policy_with(entry, {"KEY": "a-secret\nheader"}, headers={"X-Key": "${KEY}"})
    assert "a-secret" not in str(raised.value)
