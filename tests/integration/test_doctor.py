"""`doctor` on whole set-ups: a good one, broken ones of which it names the fault, and the command as it is typed."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml

from app.bootstrap.settings import read_settings
from app.cli.doctor.examine import Asked, examine
from app.cli.doctor.finding import Finding
from app.kit.clock import SystemClock
from app.kit.http import open_http
from app.web.tokens import create_token
from tests.fakes.airflow import FakeAirflow
from tests.integration.processes import command
from tests.servers import TestServers

GATEWAY = "http://gateway.test:8090"
POLICY: dict[str, Any] = {
    "version": 1,
    "airflow": [{"name": "default", "url": FakeAirflow.url, "auth": {"username": "gateway", "password": "gateway"}}],
    "routes": [
        {
            "name": "accuracy",
            "match": ['alertname="Low"'],
            "group_by": ["model"],
            "debounce": "10m",
            "limit": {"triggers": 100, "per": "1d"},
            "dag": {"id": "retrain"},
        }
    ],
}
HOOK = {"url": f"{GATEWAY}/api/v1/webhooks/alertmanager", "send_resolved": True, "max_alerts": 0}
ALERTMANAGER: dict[str, Any] = {
    "route": {"receiver": "gw", "group_interval": "5m", "repeat_interval": "4h"},
    "receivers": [{"name": "gw", "webhook_configs": [HOOK]}],
}


@dataclass
class Setup:
    """Everything that a first-day user puts together, good until a test spoils it."""

    folder: Path
    database: str
    redis: str
    airflow: FakeAirflow
    policy: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(POLICY)))
    alertmanager: dict[str, Any] | None = field(default_factory=lambda: json.loads(json.dumps(ALERTMANAGER)))
    tenant: str | None = None  # what Alertmanager wants in X-Scope-OrgID
    host: str = "127.0.0.1"
    read: str | None = None
    hosts: dict[str, httpx.AsyncBaseTransport] = field(default_factory=lambda: {"gateway.test": GatewayUp()})

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    @property
    def hook(self) -> dict[str, Any]:
        assert self.alertmanager is not None
        hook: dict[str, Any] = self.alertmanager["receivers"][0]["webhook_configs"][0]
        return hook

    async def examined(self) -> tuple[Finding, ...]:
        (self.folder / "policy.yaml").write_text(yaml.safe_dump(self.policy))
        settings = read_settings(
            policy_file=self.folder / "policy.yaml",
            data_dir=self.folder,
            database_url=self.database,
            database_read_url=self.read,
            redis_url=self.redis,
            host=self.host,
        )
        transport = Network({"airflow.test": self.airflow.transport(), "am.test": self.am, **self.hosts})
        async with open_http(transport=transport) as http:
            findings = await examine(settings, Asked("http://am.test:9093/"), GATEWAY, http)
        assert self.airflow.posts == [], "the doctor starts nothing"
        return findings

    @property
    def am(self) -> httpx.MockTransport:
        """A running Alertmanager, or nobody."""

        def answered(request: httpx.Request) -> httpx.Response:
            if self.alertmanager is None:
                raise httpx.ConnectError("refused")
            assert request.url.path == "/api/v2/status"
            if self.tenant != request.headers.get("x-scope-orgid"):
                return httpx.Response(401, text="no org id")
            original = yaml.safe_dump(self.alertmanager)
            return httpx.Response(200, json={"config": {"original": original}, "uptime": "2026-01-01T00:00:00Z"})

        return httpx.MockTransport(answered)

    async def sql(self, *statements: str) -> None:
        """Change this database, as its owner may."""
        conn = await asyncpg.connect(self.database)
        try:
            name = await conn.fetchval("SELECT current_database()")
            for statement in statements:
                await conn.execute(statement.format(database=name))
        finally:
            await conn.close()


class Network(httpx.AsyncBaseTransport):
    """Hosts by name."""

    def __init__(self, hosts: Mapping[str, httpx.AsyncBaseTransport]) -> None:
        self._hosts = hosts

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._hosts[request.url.host].handle_async_request(request)


class GatewayUp(httpx.AsyncBaseTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"status": "ok"})


@pytest.fixture
def setup(tmp_path: Path, database: str, servers: TestServers) -> Setup:
    airflow = FakeAirflow(SystemClock())
    airflow.users["gateway"] = "gateway"
    airflow.add_dag("retrain")
    return Setup(tmp_path, database, servers.valkey.url, airflow)


def bad(findings: tuple[Finding, ...], *expected: str) -> dict[str, str]:
    """What is not well, but for what no test here can have: a synchronous standby, fsync, a date of the fake Airflow."""
    without = {"postgres durable", "airflow default clock"} - set(expected)
    return {f.check: f.level for f in findings if f.level != "ok" and f.check not in without}


async def test_an_alertmanager_with_a_tenant_is_asked_as_its_receiver_does(setup: Setup) -> None:
    setup.tenant = "ml"
    people = {"name": "people", "alertmanager": {"url": "http://am.test:9093", "headers": {"X-Scope-OrgID": "ml"}}}
    setup.policy["receivers"] = [people]
    assert bad(await setup.examined()) == {}
    del people["alertmanager"]["headers"]  # type: ignore[attr-defined]
    assert bad(await setup.examined()) == {"receiver people": "fail", "alertmanager": "fail"}


async def test_a_good_set_up_has_no_fault(setup: Setup) -> None:
    findings = await setup.examined()
    assert bad(findings) == {}
    assert [finding.check for finding in findings] == [
        "policy",
        "policy values",
        "tokens",
        "postgres reachable",
        "postgres writable",
        "postgres durable",
        "postgres migrated",
        "postgres clock",
        "redis reachable",
        "gateway",
        "airflow default reachable",
        "airflow default scheduler",
        "airflow default clock",
        "airflow default login",
        "airflow default DAG retrain",
        "alertmanager",
        "alertmanager receiver",
        "alertmanager send_resolved",
        "alertmanager max_alerts",
        "alertmanager route accuracy",
    ]


def policy_value(setup: Setup) -> None:
    setup.policy["airflow"][0]["auth"]["password"] = "${NOT_SET_ANYWHERE}"


def policy_typo(setup: Setup) -> None:
    setup.policy["routes"][0]["cooldwn"] = "1d"


def wrong_password(setup: Setup) -> None:
    setup.policy["airflow"][0]["auth"]["password"] = "wrong"


def wrong_receiver(setup: Setup) -> None:
    setup.hook["url"] = "http://gateway.test:8090/alerts"


def long_interval(setup: Setup) -> None:
    assert setup.alertmanager
    setup.alertmanager["route"]["group_interval"] = "15m"


def rare_repeat(setup: Setup) -> None:
    assert setup.alertmanager
    setup.alertmanager["route"]["repeat_interval"] = "12h"


def token_not_sent(setup: Setup) -> None:
    create_token(setup.tokens, ["ingest"], "am", SystemClock().now())


def no_alertmanager(setup: Setup) -> None:
    setup.alertmanager = None


def open_bind(setup: Setup) -> None:
    setup.host = "0.0.0.0"


def no_redis(setup: Setup) -> None:
    setup.redis = "redis://127.0.0.1:1"


BROKEN: list[Any] = [
    pytest.param(policy_typo, {"policy": "fail"}, id="a-typo-in-the-policy"),
    pytest.param(policy_value, {"policy values": "fail", "airflow default": "warn"}, id="a-variable-not-set"),
    pytest.param(wrong_password, {"airflow default login": "fail"}, id="a-wrong-password"),
    pytest.param(lambda s: s.airflow.dags.clear(), {"airflow default DAG retrain": "fail"}, id="no-such-dag"),
    pytest.param(lambda s: s.airflow.pause("retrain"), {"airflow default DAG retrain": "fail"}, id="a-paused-dag"),
    pytest.param(lambda s: s.airflow.break_dag("retrain"), {"airflow default DAG retrain": "fail"}, id="a-broken-dag"),
    pytest.param(
        lambda s: s.airflow.viewers.add("gateway"), {"airflow default DAG retrain": "fail"}, id="a-user-that-only-reads"
    ),
    pytest.param(
        lambda s: s.airflow.components.update(scheduler="unhealthy"),
        {"airflow default scheduler": "fail"},
        id="a-dead-scheduler",
    ),
    pytest.param(lambda s: setattr(s.airflow, "down", True), {"airflow default reachable": "fail"}, id="no-airflow"),
    pytest.param(no_alertmanager, {"alertmanager": "fail"}, id="no-alertmanager"),
    pytest.param(wrong_receiver, {"alertmanager receiver": "fail"}, id="a-receiver-with-another-path"),
    pytest.param(lambda s: s.hook.update(send_resolved=False), {"alertmanager send_resolved": "fail"}, id="no-ends"),
    pytest.param(lambda s: s.hook.update(max_alerts=5), {"alertmanager max_alerts": "fail"}, id="alerts-left-out"),
    pytest.param(long_interval, {"alertmanager route accuracy": "fail"}, id="group_interval-over-the-debounce"),
    pytest.param(rare_repeat, {"alertmanager route accuracy": "fail"}, id="repeat_interval-over-stale_after"),
    pytest.param(token_not_sent, {"alertmanager receiver token": "fail"}, id="a-receiver-without-its-token"),
    pytest.param(open_bind, {"tokens": "fail"}, id="an-open-bind-without-tokens"),
    pytest.param(no_redis, {"redis reachable": "warn"}, id="no-redis"),
]


@pytest.mark.parametrize(("spoil", "faults"), BROKEN)
async def test_a_broken_set_up_is_told_by_its_fault_and_by_nothing_else(
    setup: Setup, spoil: Callable[[Setup], None], faults: dict[str, str]
) -> None:
    spoil(setup)
    findings = await setup.examined()
    assert bad(findings) == faults
    assert all(finding.next_step for finding in findings if finding.level != "ok")


@pytest.mark.parametrize(
    ("statement", "check", "words"),
    [
        ("ALTER DATABASE {database} SET synchronous_commit = off", "postgres durable", "synchronous_commit = on"),
        ("ALTER DATABASE {database} SET default_transaction_read_only = on", "postgres writable", "primary"),
        ("DELETE FROM alembic_version", "postgres migrated", "trigger-gateway migrate"),
        ("UPDATE alembic_version SET version_num = '8e1f5b02c6da'", "postgres migrated", "trigger-gateway migrate"),
    ],
    ids=["synchronous_commit-off", "read-only", "never-migrated", "at-an-older-revision"],
)
async def test_a_postgres_that_does_not_keep_its_promise_is_told(
    setup: Setup, statement: str, check: str, words: str
) -> None:
    await setup.sql(statement)
    findings = await setup.examined()
    steps = [finding.next_step for finding in findings if finding.check == check and finding.level == "fail"]
    assert words in steps[-1]


async def test_a_schema_of_a_newer_gateway_is_no_fault(setup: Setup) -> None:
    await setup.sql("UPDATE alembic_version SET version_num = 'of_a_newer'")
    findings = await setup.examined()
    assert bad(findings) == {}
    assert [f.detail for f in findings if f.check == "postgres migrated"] == [
        "at revision of_a_newer of a newer gateway; this version works with it until you replace it"
    ]


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (lambda url: "postgresql://gateway:hush@127.0.0.1:1/x", "Start Postgres"),
        (lambda url: url.replace("/test_", "/no_"), "database name"),
        (lambda url: "postgresql://[", "GATEWAY_DATABASE_URL"),
    ],
    ids=["nobody-listens", "no-such-database", "no-url"],
)
async def test_a_postgres_that_cannot_be_had_is_told_without_its_password(
    setup: Setup, change: Callable[[str], str], step: str
) -> None:
    setup.database = change(setup.database)
    findings = await setup.examined()
    (finding,) = (finding for finding in findings if finding.check.startswith("postgres"))
    assert (finding.check, finding.level) == ("postgres reachable", "fail")
    assert step in finding.next_step
    assert "hush" not in str(findings)


@pytest.mark.parametrize(
    ("read", "levels"),
    [(None, []), ("same", ["ok"]), ("empty", ["warn"]), ("postgresql://u:hush@127.0.0.1:1/x", ["warn"])],
    ids=["none", "one-that-answers", "one-without-tables", "nobody-listens"],
)
async def test_the_copy_that_lists_are_read_from(
    setup: Setup, servers: TestServers, read: str | None, levels: list[str]
) -> None:
    setup.read = {"same": setup.database, "empty": servers.fresh_database()}.get(read or "", read)
    findings = await setup.examined()
    assert [finding.level for finding in findings if finding.check == "postgres read copy"] == levels
    assert "hush" not in str(findings)


async def test_receivers_are_looked_at_and_told_nothing(setup: Setup) -> None:
    secret = f"whsec_{'MfKQ9r8G' * 4}"
    setup.policy["receivers"] = [
        {"name": "people", "alertmanager": {"url": "http://am.test:9093"}},
        {"name": "hook", "webhook": {"url": "http://gateway.test:8090/secret?key=hunter2", "secret": secret}},
    ]
    assert bad(await setup.examined()) == {}
    setup.alertmanager = None
    setup.policy["receivers"].append({"name": "other", "alertmanager": {"url": "http://gateway.test:8090"}})
    setup.hosts["gateway.test"] = httpx.MockTransport(lambda _request: httpx.Response(404))
    findings = await setup.examined()
    assert bad(findings) == {
        "gateway": "fail",
        "receiver people": "fail",
        "receiver other": "fail",
        "alertmanager": "fail",
    }
    assert not [finding for finding in findings if "hunter2" in finding.detail + finding.next_step]


async def test_a_dag_with_placeholders_is_looked_at_for_the_groups_of_the_database(setup: Setup) -> None:
    setup.policy["routes"][0]["dag"]["id"] = "retrain_{{group.model}}"
    assert bad(await setup.examined()) == {"airflow default DAG retrain_{{group.model}}": "warn"}
    await setup.sql(
        "INSERT INTO groups (key, route, mode, labels, failures, version, nonce) "
        """VALUES ('k', 'accuracy', 'live', '{{"model": "churn"}}', 0, 1, 'n')"""
    )
    assert bad(await setup.examined()) == {"airflow default DAG retrain_churn": "fail"}
    setup.airflow.add_dag("retrain_churn")
    assert bad(await setup.examined()) == {}


# The command.


def test_the_command_on_an_empty_folder_names_the_first_thing_to_do(tmp_path: Path) -> None:
    done = command(tmp_path, "doctor", data_dir=str(tmp_path / "data"), url="http://127.0.0.1:1")
    assert done.returncode == 1, done.stderr
    assert "trigger-gateway init" in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "policy.yaml").exists(), "it changes nothing"


@pytest.mark.parametrize(
    ("config", "status", "level"),
    [(ALERTMANAGER, 1, "ok"), ({"route": {}}, 1, "fail"), (None, 1, "fail")],
    ids=["good", "bad", "not-there"],
)
def test_the_command_reads_a_file_of_alertmanager_and_answers_scripts(
    tmp_path: Path, database: str, servers: TestServers, config: dict[str, Any] | None, status: int, level: str
) -> None:
    closed = POLICY | {"airflow": [{"name": "default", "url": "http://127.0.0.1:1"}]}
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(closed))
    if config is not None:
        (tmp_path / "am.yml").write_text(yaml.safe_dump(config))
    urls = {"database_url": database, "redis_url": servers.valkey.url, "url": "http://127.0.0.1:1"}
    done = command(tmp_path, "doctor", "--json", "--alertmanager-config", "am.yml", **urls)
    assert done.returncode == status, done.stderr
    answer = json.loads(done.stdout)
    assert answer["status"] == "fail"
    levels = [check["level"] for check in answer["checks"] if check["check"].startswith("alertmanager")]
    assert ("fail" in levels) == (level == "fail")
