"""A history out of Prometheus: its chunks, its holes, and what it says when it cannot be had."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.kit.access import Access
from app.kit.errors import GatewayError, UsageError
from app.policy.schema import Policy
from app.replay.backtest import Question, Report, backtest
from app.replay.history import Heard, History
from app.replay.html import as_html
from app.replay.prometheus.api import PrometheusApi
from app.replay.prometheus.confirm import Confirms
from app.replay.prometheus.notify import Pace
from app.replay.prometheus.read import Routing, Way, fingerprint, read_history, window_of
from tests.fakes.tsdb import FakeTsdb, good, refused
from tests.unit.builders import DAY, HOUR, MINUTE, NOW, policy

ALERTMANAGER = Path(__file__).parents[1] / "fixtures" / "alertmanager"
LOW = {"alertname": "ModelAccuracyLow", "severity": "critical"}
ROUTING = Routing(lambda labels: [Way("default", Pace(("alertname", "model")))], "as by default")
POLICY = policy(match=['alertname="ModelAccuracyLow"'], debounce=10 * MINUTE, cooldown=DAY)


def when(*hours: float) -> list[tuple[datetime, datetime]]:
    """Pairs of hours."""
    return [(NOW + a * HOUR, NOW + b * HOUR) for a, b in zip(hours[::2], hours[1::2], strict=True)]


def tsdb(*fired: tuple[str, list[tuple[datetime, datetime]]], ran: list[tuple[datetime, datetime]]) -> FakeTsdb:
    fake = FakeTsdb()
    fake.ran = ran
    fake.fired = [(LOW | {"model": model}, times) for model, times in fired]
    return fake


def read(fake: FakeTsdb, days: float, step: timedelta = MINUTE, access: Access | None = None) -> History:
    def wanted(labels: Mapping[str, str]) -> bool:
        return POLICY.route_for(labels) is not None

    with PrometheusApi("http://prometheus:9090", access, fake.transport()) as api:
        return read_history(api, window_of(NOW, NOW + days * DAY, step), ROUTING, wanted)


def heard(history: History) -> list[tuple[float, str, bool]]:
    """Hours after the beginning, model, and whether it fires."""
    events = [event for event in history.events if isinstance(event, Heard)]
    return [
        (round((event.at - NOW) / HOUR, 3), alert.labels["model"], alert.firing)
        for event in events
        for alert in event.alerts
    ]


def report(history: History, **more: Any) -> Report:
    return backtest(history, Question(POLICY, length=40 * MINUTE, **more))


def test_alerts_become_what_alertmanager_would_have_posted() -> None:
    history = read(tsdb(("churn", when(1, 2)), ("fraud", when(0, 5)), ran=when(0, 24)), days=1)
    assert heard(history) == [
        (0.008, "fraud", True),
        (1.008, "churn", True),
        (
            2.092,
            "churn",
            False,
        ),  # It ended a minute after its last sample; its next tick is at 2 h 5 m 30 s.
        (4.008, "fraud", True),
        (5.092, "fraud", False),
    ]
    assert history.covers == (NOW, NOW + DAY)


@pytest.mark.parametrize(("days", "queries"), [(1, 1), (7, 1), (7.5, 2), (30, 5)])
def test_a_long_time_is_asked_for_in_chunks_and_an_alert_goes_on_over_their_borders(days: float, queries: int) -> None:
    fake = tsdb(("churn", [(NOW, NOW + days * DAY)]), ran=[(NOW, NOW + days * DAY)])
    history = read(fake, days)
    assert [call for call, _ in fake.asked].count("query_range") == 2 * queries
    assert {event.alerts[0].starts_at for event in history.events if isinstance(event, Heard)} == {NOW}
    assert (history.holes, history.covers) == ([], (NOW, NOW + days * DAY))


def test_a_chunk_that_is_too_large_is_halved() -> None:
    def says(call: str, parameters: dict[str, str]) -> httpx.Response | None:
        points = (float(parameters["end"]) - float(parameters["start"])) / float(parameters["step"]) + 1
        if points > 3000:
            return refused(422, "query processing would load too many samples into memory")
        return httpx.Response(200, content=b"x" * 17_000_000) if points > 2000 else None

    fake = tsdb(("churn", when(1, 100)), ran=when(0, 240))
    fake.says = says
    history = read(fake, days=10)
    assert [round(at) for at, _, firing in heard(history) if not firing] == [100]
    assert len(fake.asked) < 30

    fake.says = lambda call, parameters: refused(422, "too many samples")
    with pytest.raises(
        GatewayError, match=r"cannot answer the query \(too many samples\), even for .* a longer --step"
    ):
        read(fake, days=10)


def test_a_hole_is_what_prometheus_does_not_know_and_its_alerts_hang_on_that() -> None:
    # fraud fires into the hole from 48 h to 72 h, and out of it again. churn is over before.
    fake = tsdb(("churn", when(10, 12)), ("fraud", when(40, 48, 72, 80)), ran=when(0, 48, 72, 240))
    history = read(fake, days=10)
    assert history.holes == [(NOW + 48 * HOUR + MINUTE, NOW + 72 * HOUR)]
    shown = report(history)
    assert shown.as_json()["coverage"]["holes"] == [{"from": "2026-11-25T12:01:00Z", "to": "2026-11-26T12:00:00Z"}]
    hanging = {each.name: each.triggers for each in shown.assumptions}
    assert (shown.proposed[""].retrains, hanging["hole"], hanging["alertmanager"]) == (3, 2, 3)


def test_the_coverage_is_what_prometheus_has_and_not_when_something_fired() -> None:
    shown = report(read(tsdb(("churn", when(60, 61)), ran=when(48, 200)), days=30)).as_json()
    assert shown["coverage"]["from"] == "2026-11-25T12:00:00Z"
    assert shown["coverage"]["to"] == "2026-12-01T20:01:00Z"
    assert shown["coverage"]["resolution"] == "1m, the step of the queries"


def test_an_alert_that_fires_at_the_beginning_and_what_no_route_takes() -> None:
    fake = tsdb(("churn", when(0, 20)), ("fraud", when(5, 9)), ran=when(0, 24))
    fake.fired.append(({"alertname": "DiskFull"}, when(0, 24)))
    history = read(fake, days=1)
    assert history.notes == ["1 series of ALERTS are left out: no route takes them."]
    assert {each.name: each.triggers for each in report(history).assumptions}["fires_before"] == 1


WITHOUT_UP = "Prometheus has no series up. A hole is where no alert fires, and one fires before and after it."


def test_a_prometheus_without_up_has_no_holes_that_anybody_knows() -> None:
    history = read(tsdb(("churn", when(5, 6)), ran=[]), days=1)
    assert history.notes == [WITHOUT_UP]
    assert history.holes == []
    assert history.covers == (NOW + 5 * HOUR, NOW + 6 * HOUR + MINUTE)


def series_at(time: Any) -> httpx.Response:
    return good({"resultType": "matrix", "result": [{"metric": {}, "values": [[time, "1"]]}]})


HTML = httpx.Response(200, text="<html>", headers={"Content-Type": "text/html; charset=utf-8"})
ANSWERS: dict[str, tuple[httpx.Response | Exception, type[GatewayError], str]] = {
    "nobody": (httpx.ConnectError("refused"), GatewayError, "does not answer: cannot connect to prometheus:9090"),
    "401": (httpx.Response(401, text="no"), UsageError, "refuses the login with 401: see --login"),
    "403": (refused(403, "forbidden"), UsageError, r"refuses the login with 403 \(forbidden\)"),
    "HTML": (HTML, UsageError, "is no Prometheus: it answered 200 with text/html"),
    "302": (
        httpx.Response(302, headers={"Location": "/login"}),
        UsageError,
        "redirects: give --prometheus the address",
    ),
    "404": (httpx.Response(404, text="404"), UsageError, "is no Prometheus: it answered 404"),
    "another JSON": (httpx.Response(200, json={"status": "success", "data": []}), GatewayError, "something else than"),
    "another time": (series_at(NOW.timestamp() - 1e6), GatewayError, "something else than series"),
    "no time": (series_at("nan"), GatewayError, "something else than series"),
    "a time out of range": (series_at(1e300), GatewayError, "something else than series"),
    "a list": (httpx.Response(200, json=[]), UsageError, "is no Prometheus"),
    "an error": (refused(400, "unknown"), GatewayError, r"refuses the query with 400 \(unknown\)"),
    "a timeout": (httpx.ReadTimeout("late"), GatewayError, "does not answer in time, even for"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_is_no_answer_is_one_sentence(name: str) -> None:
    answer, kind, words = ANSWERS[name]
    fake = tsdb(ran=[])
    fake.says = lambda call, parameters: answer
    with pytest.raises(kind, match=words):
        read(fake, days=1)


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        (tsdb(ran=[]), "has nothing from 2026-11-23T12:00:00Z to .*: choose a later --since"),
        (tsdb(ran=when(0, 24)), r"the history is empty: .* that a route takes \(0 that no route takes\)"),
    ],
)
def test_a_time_without_alerts_is_one_sentence(fake: FakeTsdb, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(fake, days=1)


def test_without_up_a_silence_inside_of_an_alert_is_a_hole() -> None:
    fake = tsdb(("churn", when(1, 4, 20, 30)), ("fraud", when(50, 51, 60, 61)), ("other", when(55, 56)), ran=[])
    history = read(fake, days=3)
    assert history.holes == [(NOW + 4 * HOUR + MINUTE, NOW + 20 * HOUR)]
    assert {each.name: each.triggers for each in report(history).assumptions}["hole"] == 2


def test_the_external_labels_of_prometheus_are_on_every_alert() -> None:
    fake = tsdb(("churn", when(1, 2)), ran=when(0, 24))
    fake.config = (
        "global: {external_labels: {cluster: eu, model: no}}\nalerting: {alert_relabel_configs: [{action: x}]}"
    )
    history = read(fake, days=1)
    alerts = [alert for event in history.events if isinstance(event, Heard) for alert in event.alerts]
    assert [dict(alert.labels) for alert in alerts] == 2 * [{**LOW, "model": "churn", "cluster": "eu"}]
    assert history.notes == ["alert_relabel_configs are left out: labels are those of ALERTS."]


@pytest.mark.parametrize("config", ["{", "[]", "global: 5", "global: {external_labels: 5}\nalerting: 5"])
def test_a_configuration_that_cannot_be_read_is_a_note_or_nothing(config: str) -> None:
    fake = tsdb(("churn", when(1, 2)), ran=when(0, 24))
    fake.config = config
    history = read(fake, days=1)
    hidden = ["Prometheus does not show its configuration: external_labels are not known."]
    assert history.notes == (hidden if not config.startswith("global") else [])


def test_what_prometheus_warns_of_is_a_note() -> None:
    fake = tsdb(("churn", when(1, 2)), ran=when(0, 24))
    partial = {
        "status": "success",
        "data": {"resultType": "matrix", "result": []},
        "warnings": ["a store is <b>away</b>"],
    }
    answer = httpx.Response(200, json=partial)
    fake.says = lambda _, parameters: answer if parameters.get("query") == "count(up)" else None
    history = read(fake, days=1)
    assert history.notes == [WITHOUT_UP, "Prometheus warns: a store is <b>away</b>"]
    assert "<p>Prometheus warns: a store is &lt;b&gt;away&lt;/b&gt;</p>" in as_html(report(history))


def test_more_notifications_than_a_replay_takes_are_refused() -> None:
    fake = tsdb(("churn", when(0, 24)), ran=when(0, 24))
    with PrometheusApi("http://prometheus:9090", transport=fake.transport()) as api:
        window = window_of(NOW, NOW + DAY, MINUTE)
        assert len(read_history(api, window, ROUTING, lambda _: True, most=6).events) == 6
        with pytest.raises(
            UsageError, match="more than 5 times: choose a later --since, or a longer --repeat-interval"
        ):
            read_history(api, window, ROUTING, lambda _: True, most=5)


def test_the_login_and_the_headers_go_with_every_request() -> None:
    fake = tsdb(("churn", when(1, 2)), ran=when(0, 24))
    read(fake, days=1, access=Access("me", "secret", headers={"X-Scope-OrgID": "ml"}))
    assert {headers["X-Scope-OrgID"] for headers in fake.headers} == {"ml"}
    assert {headers["Authorization"] for headers in fake.headers} == {"Basic bWU6c2VjcmV0"}


def test_a_fingerprint_is_that_of_alertmanager() -> None:
    recorded = [
        json.loads((ALERTMANAGER / f"{name}.json").read_text()) for name in ("firing_single", "firing_group_of_two")
    ]
    for alert in [alert for body in recorded for alert in body["alerts"]]:
        assert fingerprint(alert["labels"]) == alert["fingerprint"]
    assert fingerprint({"model": "\ud800"})  # JSON can hold half of a character.


CONFIRM = {"prometheus": "http://prometheus:9090", "query": 'model_accuracy{model="{{group.model}}"} < 0.85'}
ASKING = policy(match=['alertname="ModelAccuracyLow"'], group_by=["model"], cooldown=DAY, confirm=CONFIRM)


def confirmed(fake: FakeTsdb, candidate: Policy = ASKING) -> dict[str, Any]:
    """The report on ten days with a policy that asks Prometheus."""
    with PrometheusApi("http://prometheus:9090", transport=fake.transport()) as api:
        history = read_history(api, window_of(NOW, NOW + 10 * DAY, MINUTE), ROUTING, lambda _: True)
        assert history.covers is not None
        history.ask = Confirms(api, history.covers, history.holes or ())
        return backtest(history, Question(candidate, length=40 * MINUTE)).as_json()


def low_from(begin: float, end: float) -> Callable[[str, dict[str, str]], httpx.Response | None]:
    """Prometheus confirms between these hours."""

    def answer(call: str, parameters: dict[str, str]) -> httpx.Response | None:
        if call != "query":
            return None
        hours = (float(parameters["time"]) - NOW.timestamp()) / 3600
        result = [{"metric": {}, "value": [float(parameters["time"]), "0.7"]}] if begin <= hours <= end else []
        return good({"resultType": "vector", "result": result})

    return answer


def test_confirm_is_answered_as_of_then() -> None:
    fake = tsdb(("churn", when(10, 14)), ("fraud", when(30, 34)), ran=when(0, 240))
    fake.says = low_from(32, 33)
    shown = confirmed(fake)
    questions = [parameters for call, parameters in fake.asked if call == "query"]
    assert questions[0]["query"] == 'model_accuracy{model="churn"} < 0.85'
    # churn is asked each five minutes for four hours, fraud for two until it is confirmed at 32 h.
    assert 48 + 24 <= len(questions) <= 48 + 28
    assert (shown["proposed"]["retrains"], shown["proposed"]["not_evaluable"]) == (1, 0)
    assert {each["name"]: each["triggers"] for each in shown["assumptions"]}["confirm_then"] == 1


@pytest.mark.parametrize(("on_error", "retrains"), [("fire", 2), ("suppress", 1)])
def test_confirm_in_a_hole_is_not_evaluable(on_error: str, retrains: int) -> None:
    # fraud begins six minutes before the hole, and its debounce ends in it.
    candidate = policy(
        match=['alertname="ModelAccuracyLow"'], debounce=10 * MINUTE, confirm={**CONFIRM, "on_error": on_error}
    )
    fake = tsdb(("churn", when(10, 14)), ("fraud", when(47.9, 48.1)), ran=when(0, 48, 72, 240))
    fake.says = low_from(0, 240)
    shown = confirmed(fake, candidate)
    assert (shown["proposed"]["retrains"], shown["proposed"]["not_evaluable"]) == (retrains, 1)


def test_when_prometheus_goes_away_the_rest_is_not_evaluable() -> None:
    fake = tsdb(("churn", when(10, 14)), ran=when(0, 240))
    fake.says = lambda call, _: httpx.ConnectError("gone") if call == "query" else None
    candidate = policy(match=[], confirm={**CONFIRM, "on_error": "suppress"})
    shown = confirmed(fake, candidate)
    assert (shown["proposed"]["retrains"], shown["proposed"]["not_evaluable"]) == (0, 1)
    assert len([call for call, _ in fake.asked if call == "query"]) == 3
