"""`backtest --prometheus`: from the address to the report, and one sentence for each wrong use."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.cli.commands.from_prometheus import FromPrometheus
from app.kit.embedded.processes import free_ports
from app.kit.errors import UsageError
from app.policy.file.load import load_policy, parse_policy
from tests.fakes.tsdb import FakeTsdb, refused
from tests.integration.processes import command
from tests.unit.builders import DAY, HOUR, NOW

POLICY = """
version: 1
airflow: [{name: default, url: "http://127.0.0.1:8080", auth: {username: u, password: "${NOT_SET_ANYWHERE}"}}]
routes:
  - {name: accuracy, match: ['alertname="ModelAccuracyLow"'], group_by: [model], debounce: 10m, dag: {id: retrain}}
"""
MONTH = ("--since", "2026-11-23T12:00Z", "--until", "2026-12-03T12:00Z")
FIRED = [(NOW + DAY, NOW + DAY + 9 * HOUR), (NOW + 5 * DAY, NOW + 5 * DAY + HOUR / 4)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "new.yaml").write_text(POLICY.replace("10m", "30m"))
    (tmp_path / "bad.yaml").write_text(POLICY.replace("10m", "soon"))
    (tmp_path / "login.yaml").write_text('auth: {username: me, password: "${GATEWAY_PASSWORD_OF_IT}"}')
    (tmp_path / "wrong.yaml").write_text("auth: {username: me, password: 5}")
    (tmp_path / "key.yaml").write_text("tokens: 5")
    return tmp_path


@pytest.fixture
def tsdb() -> Iterator[tuple[FakeTsdb, str]]:
    fake = FakeTsdb()
    fake.ran = [(NOW, NOW + 10 * DAY)]
    fake.fired = [({"alertname": "ModelAccuracyLow", "model": "churn"}, FIRED)]
    with fake.served() as url:
        yield fake, url


def test_a_report_needs_an_address_and_a_policy(folder: Path, tsdb: tuple[FakeTsdb, str]) -> None:
    options = ("--prometheus", tsdb[1], *MONTH, "--run", "40m", "--format", "json")
    done = command(folder, "backtest", "new.yaml", "--compare", "policy.yaml", *options)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert (report["now"]["retrains"], report["proposed"]["retrains"]) == (2, 1)
    # Half a minute of group_wait, and 15 minutes and one: the flap ended at the tick of 20 minutes and a half.
    assert [change["text"] for change in report["changed"]] == [
        "churn 24 Nov 12:00: debounce 10m → 30m; its run begins 20m later",
        "churn 28 Nov 12:00: debounce 10m → 30m; it resolved after 20m",
    ]
    assert report["coverage"]["resolution"] == "1m, the step of the queries"


def test_a_sweep_takes_prometheus_too(folder: Path, tsdb: tuple[FakeTsdb, str]) -> None:
    done = command(
        folder, "backtest", "sweep", "policy.yaml", "--debounce", "0s,30m", "--prometheus", tsdb[1], *MONTH, "--json"
    )
    assert [point["retrains"] for point in json.loads(done.stdout)] == [2, 1]


def test_the_login_is_that_of_the_file(folder: Path, tsdb: tuple[FakeTsdb, str]) -> None:
    fake, url = tsdb
    options = ("backtest", "policy.yaml", "--prometheus", url, *MONTH, "--login", "login.yaml")
    done = command(folder, *options, password_of_it="secret")
    assert done.returncode == 0, done.stderr
    assert {headers["authorization"] for headers in fake.headers} == {"Basic bWU6c2VjcmV0"}


HTML = httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("instead", "code", "words"),
    [
        (httpx.Response(401, text="no"), 2, "refuses the login with 401: see --login"),
        (HTML, 2, "is no Prometheus: it answered 200 with text/html"),
        (refused(400, "no \x1b[31m such thing"), 1, r"refuses the query with 400 (no \x1b[31m such thing)"),
    ],
)
def test_what_is_no_answer_is_one_sentence(
    folder: Path, tsdb: tuple[FakeTsdb, str], instead: httpx.Response, code: int, words: str
) -> None:
    tsdb[0].says = lambda call, parameters: instead
    done = command(folder, "backtest", "policy.yaml", "--prometheus", tsdb[1], *MONTH)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("policy.yaml --prometheus NOBODY", 1, "does not answer: cannot connect to 127.0.0.1"),
        ("policy.yaml --prometheus NOBODY --history x", 2, "name one source: --history or --prometheus"),
        ("bad.yaml --prometheus NOBODY", 2, "bad.yaml:5:"),
    ],
)
def test_a_wrong_use_is_one_sentence(folder: Path, arguments: str, code: int, words: str) -> None:
    nobody = f"http://127.0.0.1:{free_ports(1)[0]}"
    done = command(folder, "backtest", *arguments.replace("NOBODY", nobody).split())
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prometheus": "prometheus:9090"}, "--prometheus must be an address such as"),
        ({"prometheus": "http://me:secret@host"}, "not in the address: a login stands in the file of --login"),
        ({"since": NOW - 90 * DAY, "until": NOW - 60 * DAY}, "has nothing from 2026-08"),
        ({"until": NOW + HOUR}, "the history is empty"),
        ({"until": NOW}, "the window is empty"),
        ({"step": "1ms"}, "--step 1ms: it must be a second at least"),
        ({"group_interval": "0s"}, "--group-interval must be longer than 0"),
        ({"group_wait": "soon"}, "--group-wait: 'soon' is not a duration"),
        ({"alertmanager": Path("no.yml")}, "no.yml cannot be read"),
        ({"login": "no.yaml"}, "no.yaml cannot be read: No such file"),
        ({"login": "login.yaml"}, "GATEWAY_PASSWORD_OF_IT is not set"),
        ({"login": "wrong.yaml"}, "wrong.yaml: auth"),
        ({"login": "key.yaml"}, "key.yaml: tokens: .* It may have auth, headers and ca_file"),
    ],
)
def test_a_wrong_option_is_one_sentence(
    folder: Path, tsdb: tuple[FakeTsdb, str], options: dict[str, Any], words: str
) -> None:
    since, until = options.pop("since", NOW), options.pop("until", NOW + 10 * DAY)
    if "login" in options:
        options["login"] = folder / options["login"]
    source = FromPrometheus(**{"prometheus": tsdb[1], **options})
    policy = load_policy(folder / "policy.yaml", require_env=False)
    with ExitStack() as stack, pytest.raises(UsageError, match=words):
        source.read(None, [policy], since, until, lambda *_: None, stack)


def test_the_login_of_confirm_counts_for_its_own_address(folder: Path, tsdb: tuple[FakeTsdb, str]) -> None:
    fake, url = tsdb
    asking = f'{{prometheus: "{url}/", query: up, auth: {{token: abc}}, headers: {{X-Scope-OrgID: ml}}}}'
    policy = parse_policy(f"{POLICY}defaults: {{confirm: {asking}}}", "policy.yaml", {}, require_env=False)
    with ExitStack() as stack:
        FromPrometheus(prometheus=url).read(None, [policy], NOW, NOW + 2 * DAY, lambda *_: None, stack)
    assert {(each["authorization"], each["x-scope-orgid"]) for each in fake.headers} == {("Bearer abc", "ml")}
