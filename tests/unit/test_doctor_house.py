"""What stands on the gateway's own side: policy, values, tokens, and itself; and how the answer is shown."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from app.cli.doctor.finding import Finding, fail, good, warn, worst
from app.cli.doctor.house import examine_gateway, examine_policy, examine_tokens
from app.cli.doctor.report import as_json, show
from app.cli.doctor.servers import _quoted as told_of
from app.cli.doctor.servers import judge_durability, judge_offset, judge_writes
from app.kit.errors import LEFT_OUT
from app.kit.http import open_http
from app.web.tokens import create_token

NOW = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = """
version: 1
airflow: [{name: default, url: "http://127.0.0.1:8080", auth: {username: u, password: "${NOT_SET_ANYWHERE}"}}]
routes: [{name: accuracy, match: ['alertname="A"'], debounce: 1m, dag: {id: retrain}}]
"""


def by_check(findings: tuple[Finding, ...] | list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.level) for finding in findings]


def test_no_policy_names_init(tmp_path: Path) -> None:
    read = examine_policy(tmp_path / "policy.yaml")
    assert by_check(read.findings) == [("policy", "fail")]
    assert "trigger-gateway init" in read.findings[0].next_step
    assert read.policy is None


def test_every_error_of_a_policy_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("1m", "soon").replace("retrain", "''"))
    read = examine_policy(path)
    assert {level for _, level in by_check(read.findings)} == {"fail"}
    assert len(read.findings) >= 2
    assert all(str(path) in finding.detail for finding in read.findings)


def test_a_value_that_is_not_set_is_a_fault_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    read = examine_policy(path)
    assert by_check(read.findings) == [("policy", "ok"), ("policy", "warn"), ("policy values", "fail")]
    assert "NOT_SET_ANYWHERE" in read.findings[-1].detail
    assert read.policy is not None
    assert not read.complete
    monkeypatch.setenv("NOT_SET_ANYWHERE", "secret")
    again = examine_policy(path)
    assert again.complete
    assert by_check(again.findings)[-1] == ("policy values", "ok")
    assert "secret" not in str(again.findings)


@pytest.mark.parametrize(
    ("scopes", "host", "levels", "needed"),
    [
        pytest.param([], "127.0.0.1", ["ok"], False, id="loopback-needs-none"),
        pytest.param([], "0.0.0.0", ["fail"], False, id="an-open-bind-without-any"),
        pytest.param(["ingest"], "0.0.0.0", ["ok"], True, id="an-open-bind-with-one"),
        pytest.param(["admin"], "127.0.0.1", ["ok"], True, id="admin-may-send-alerts"),
        pytest.param(["read"], "127.0.0.1", ["fail"], True, id="nobody-may-send-alerts"),
    ],
)
def test_tokens(tmp_path: Path, scopes: list[str], host: str, levels: list[str], needed: bool) -> None:
    if scopes:
        create_token(tmp_path / "tokens", scopes, "one", NOW)
    findings, need = examine_tokens(tmp_path / "tokens", host, NOW)
    assert ([finding.level for finding in findings], need) == (levels, needed)
    assert all("token create" in finding.next_step for finding in findings if finding.level == "fail")


def test_an_expired_token_is_named_and_counts_for_nothing(tmp_path: Path) -> None:
    create_token(tmp_path / "tokens", ["ingest"], "old", NOW, NOW + timedelta(days=1))
    findings, needed = examine_tokens(tmp_path / "tokens", "127.0.0.1", NOW + timedelta(days=2))
    assert by_check(findings) == [("tokens", "fail"), ("tokens", "warn")]
    assert "old" in findings[1].detail
    assert needed


def test_a_bad_tokens_file_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("{}\n")
    findings, needed = examine_tokens(tmp_path / "tokens", "127.0.0.1", NOW)
    assert by_check(findings) == [("tokens", "fail")]
    assert "tokens:1" in findings[0].detail
    assert needed


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        pytest.param(httpx.Response(200, json={"status": "ok"}), "ok", id="ready"),
        pytest.param(httpx.Response(200, json={"status": "degraded"}), "warn", id="without-redis"),
        pytest.param(httpx.Response(503, json={"status": "failing"}), "fail", id="without-postgres"),
        pytest.param(httpx.Response(200, text="<html>"), "fail", id="something-else-on-the-port"),
        pytest.param(httpx.Response(404, json={}), "fail", id="another-api"),
        pytest.param(None, "warn", id="not-started-yet"),
    ],
)
async def test_the_gateway_itself(answer: httpx.Response | None, level: str) -> None:
    def answered(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://gateway:8090/readyz"
        if answer is None:
            raise httpx.ConnectError("refused")
        return answer

    async with open_http(transport=httpx.MockTransport(answered)) as http:
        finding = await examine_gateway("http://gateway:8090", http)
    assert (finding.check, finding.level) == ("gateway", level)
    assert bool(finding.next_step) == (level != "ok")


class OfPostgres(Exception):
    """As asyncpg raises them."""

    sqlstate = "28P01"


@pytest.mark.parametrize(
    ("error", "url", "shown"),
    [
        (OfPostgres('no password for user "gateway"'), "postgresql://gateway:gateway@db/g", True),
        (OSError("cannot connect to db"), "postgresql://u:db@db/g", True),
        (ValueError("bad port in u:db@db:x"), "postgresql://u:db@db:x/g", False),
        (ValueError("bad port 'open-sesame'"), "postgresql://u:open-sesame@db/g", False),
        (ValueError("no url"), "postgresql://", True),
    ],
    ids=["a server", "a common word", "a whole login", "a long password", "none"],
)
def test_an_error_of_a_database_is_told_unless_it_repeats_the_login(error: Exception, url: str, shown: bool) -> None:
    assert told_of(error, url) == (str(error) if shown else LEFT_OUT)


DURABLE = {"fsync": "on", "synchronous_commit": "on", "standbys": "ANY 1 (*)", "read_only": False}


@pytest.mark.parametrize(
    ("facts", "embedded", "level", "words"),
    [
        pytest.param({}, False, "ok", "ANY 1 (*)", id="a-synchronous-standby"),
        pytest.param({"synchronous_commit": "remote_apply"}, False, "ok", "remote_apply", id="even-stricter"),
        pytest.param({"standbys": ""}, False, "warn", "synchronous_standby_names", id="no-standby"),
        pytest.param({"standbys": ""}, True, "ok", "without failover", id="no-standby-of-the-embedded-one"),
        pytest.param(
            {"synchronous_commit": "local"}, False, "warn", "does not wait for", id="the-standby-not-waited-for"
        ),
        pytest.param({"synchronous_commit": "off"}, False, "fail", "synchronous_commit = on", id="off"),
        pytest.param({"synchronous_commit": "off"}, True, "fail", "synchronous_commit = on", id="off-and-embedded"),
        pytest.param({"fsync": "off"}, False, "fail", "fsync = on", id="no-fsync"),
    ],
)
def test_durability(facts: dict[str, str], embedded: bool, level: str, words: str) -> None:
    (finding,) = judge_durability(DURABLE | facts, embedded=embedded)
    assert finding.level == level
    assert words in f"{finding.detail} {finding.next_step}"


def test_a_standby_takes_no_writes() -> None:
    assert judge_writes(DURABLE).level == "ok"
    assert judge_writes(DURABLE | {"read_only": True}).level == "fail"


@pytest.mark.parametrize(
    ("seconds", "level", "words"),
    [(0, "ok", "agrees"), (4, "ok", "agrees"), (7, "warn", "7 s ahead"), (-90, "warn", "90 s behind")],
)
def test_the_clock_of_postgres(seconds: int, level: str, words: str) -> None:
    finding = judge_offset(timedelta(seconds=seconds))
    assert finding.level == level
    assert words in finding.detail


A_FEW = [good("policy", "read"), warn("redis", "away [/x]", "Start it."), fail("dag", "paused", "Unpause it.")]


@pytest.mark.parametrize(
    ("findings", "level"),
    [([], "ok"), (A_FEW[:1], "ok"), (A_FEW[:2], "warn"), (A_FEW, "fail"), (A_FEW[::-1], "fail")],
)
def test_the_whole_is_as_bad_as_the_worst(findings: list[Finding], level: str) -> None:
    assert worst(findings) == level


def test_people_get_a_line_a_check_and_below_it_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    show(A_FEW)
    assert capsys.readouterr().out.splitlines() == [
        "ok    policy  read",
        "warn  redis   away [/x]",
        "      -> Start it.",
        "fail  dag     paused",
        "      -> Unpause it.",
        "3 checks: 1 failed, 1 to know of.",
    ]


def test_scripts_get_one_document() -> None:
    document = json.loads(as_json(A_FEW))
    assert document["status"] == "fail"
    assert document["checks"][2] == {"check": "dag", "level": "fail", "detail": "paused", "next_step": "Unpause it."}
