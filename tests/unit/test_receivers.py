"""What is sent to each kind of receiver fits its documentation, whatever a notice holds; and what its answers mean."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from pydantic import BaseModel

from app.kit.errors import LEFT_OUT, Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.kit.http import open_http
from app.notices.receivers import alertmanager, opsgenie, pagerduty, slack, webhook
from app.notices.receivers.message import Message, cut
from app.notices.receivers.send import Sender, knows_again, refresh_of
from app.policy.receivers import Receiver
from app.web.signatures import StandardSignature, standard_key
from tests.fakes.clock import NOON, ManualClock
from tests.fakes.documented import OpsgenieAlert, OpsgenieClose, PagerdutyEvent, PostableAlerts, SlackMessage
from tests.fakes.pagerduty import KEY

SECRET = f"whsec_{'MfKQ9r8G' * 4}"
PLAIN = Message(
    id="0190-1",
    key="trigger-gateway/run_failed:accuracy:0123",
    event="run_failed",
    resolved=False,
    severity="warning",
    title="The retraining of accuracy, model=churn failed",
    detail="the DAG run failed",
    labels={"model": "churn", "route": "accuracy"},
    link="https://gateway.example/api/v1/explain/1",
    opened_at=NOON,
    resolved_at=None,
    times=1,
    gateway="trigger-gateway",
)
MESSAGES = {
    "plain": PLAIN,
    "again": replace(PLAIN, times=2),
    "without a link": replace(PLAIN, link=None),
    "bare": replace(PLAIN, labels={}, link=None, detail=""),
    "long": replace(
        PLAIN, title="<&>" * 5000, detail="<&>é" * 20_000, labels={f"l{n}": "x" * 4000 for n in range(128)}
    ),
    "odd labels": replace(PLAIN, labels={"model-family": "a b", "0": "x", "é": "ü", "empty": "", "severity": "low"}),
    "long key": replace(PLAIN, key="trigger-gateway/" + "k/ :?#é" * 30),
    **{severity: replace(PLAIN, severity=severity) for severity in ("critical", "error", "info")},
}
MESSAGES |= {
    f"{name}, resolved": replace(message, resolved=True, resolved_at=NOON + timedelta(hours=1))
    for name, message in MESSAGES.items()
}
every = pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)


def receiver(**kind: Any) -> Receiver:
    return Receiver.model_validate({"name": "oncall", **kind})


PAGERDUTY = receiver(pagerduty={"routing_key": KEY})
OPSGENIE = receiver(opsgenie={"api_key": "genie-key", "url": "https://api.eu.opsgenie.com"})
SLACK = receiver(slack={"url": "https://hooks.slack.com/services/T/B/secret"})
WEBHOOK = receiver(webhook={"url": "https://ops.example/hook?key=token", "secret": SECRET})
ALERTMANAGER = receiver(alertmanager={"url": "http://alertmanager:9093"})


@every
def test_pagerduty(message: Message) -> None:
    assert PAGERDUTY.pagerduty
    asked = pagerduty.request(PAGERDUTY.pagerduty, message)
    event = PagerdutyEvent.model_validate_json(json.dumps(asked.json))
    assert asked.url == "https://events.pagerduty.com/v2/enqueue"
    assert event.event_action == ("resolve" if message.resolved else "trigger")
    assert event.dedup_key == message.key[:255]
    assert len(json.dumps(asked.json)) < 512 * 1024
    if event.payload:
        assert event.payload.severity == message.severity


@every
def test_opsgenie_and_jira_service_management(message: Message) -> None:
    for url in ("https://api.opsgenie.com", "https://api.atlassian.com/jsm/ops/integration"):
        entry = receiver(opsgenie={"api_key": "genie-key", "url": url}).opsgenie
        assert entry
        asked = opsgenie.request(entry, message)
        model: type[BaseModel] = OpsgenieClose if message.resolved else OpsgenieAlert
        model.model_validate_json(json.dumps(asked.json))
        assert asked.headers == {"Authorization": "GenieKey genie-key"}
        if message.resolved:
            parts = urlsplit(asked.url)
            assert parts.query == "identifierType=alias"
            alias = asked.url.removeprefix(f"{url}/v2/alerts/").split("/close?")[0]
            assert "/" not in alias
            assert unquote(alias) == message.key[:512]
        else:
            assert asked.url == f"{url}/v2/alerts"
            assert asked.json["alias"] == message.key[:512]


@pytest.mark.parametrize(
    ("severity", "priority"), [("critical", "P1"), ("error", "P2"), ("warning", "P3"), ("info", "P5")]
)
def test_a_severity_is_a_priority_of_opsgenie(severity: str, priority: str) -> None:
    assert OPSGENIE.opsgenie
    assert opsgenie.request(OPSGENIE.opsgenie, replace(PLAIN, severity=severity)).json["priority"] == priority


@every
def test_slack(message: Message) -> None:
    assert SLACK.slack
    asked = slack.request(SLACK.slack, message)
    SlackMessage.model_validate_json(json.dumps(asked.json))
    assert asked.url == "https://hooks.slack.com/services/T/B/secret"
    assert asked.json["text"].startswith("Resolved: ") == message.resolved
    assert "<" not in asked.json["text"]


def test_what_slack_would_read_as_markup_is_escaped_whole() -> None:
    assert SLACK.slack
    body = slack.request(SLACK.slack, replace(PLAIN, title="<!channel> a & b", detail="&" * 5000)).json
    assert body["text"] == "&lt;!channel&gt; a &amp; b"
    [section] = [block for block in body["blocks"] if "text" in block and block["type"] == "section"]
    assert section["text"]["text"].replace("&amp;", "") == "…"


@every
def test_a_webhook_is_signed_over_its_exact_bytes(message: Message) -> None:
    assert WEBHOOK.webhook
    asked = webhook.request(WEBHOOK.webhook, message, NOON)
    assert asked.content is not None
    StandardSignature(standard_key(SECRET)).check(asked.headers, asked.content, NOON)
    assert (asked.url, asked.headers["webhook-id"]) == ("https://ops.example/hook?key=token", message.id)
    body = json.loads(asked.content)
    assert body["type"] == ("notice.resolved" if message.resolved else "notice.opened")
    assert body["data"]["key"] == message.key
    assert (body["data"]["resolved_at"] is not None) == message.resolved


def test_a_retry_of_a_webhook_has_the_same_id_and_a_new_signature() -> None:
    assert WEBHOOK.webhook
    first = webhook.request(WEBHOOK.webhook, PLAIN, NOON)
    again = webhook.request(WEBHOOK.webhook, PLAIN, NOON + timedelta(minutes=10))
    assert first.content == again.content
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert first.headers["webhook-signature"] != again.headers["webhook-signature"]


@every
def test_alertmanager(message: Message) -> None:
    assert ALERTMANAGER.alertmanager
    asked = alertmanager.request(ALERTMANAGER.alertmanager, message, NOON + timedelta(minutes=5))
    [alert] = PostableAlerts.validate_json(json.dumps(asked.json))
    assert asked.url == "http://alertmanager:9093/api/v2/alerts"
    assert alert.labels["alertname"] == "TriggerGatewayRunFailed"
    assert alert.labels["severity"] == message.severity
    ends = NOON + timedelta(hours=1) if message.resolved else NOON + timedelta(minutes=20)
    assert (alert.starts_at, alert.ends_at) == (NOON, ends)


def test_an_alert_keeps_its_identity_while_it_is_open_and_when_it_ends() -> None:
    assert ALERTMANAGER.alertmanager
    messages = [PLAIN, replace(PLAIN, times=7), replace(PLAIN, resolved=True, resolved_at=NOON, detail="it goes again")]
    identities = [
        alertmanager.request(ALERTMANAGER.alertmanager, message, NOON).json[0]["labels"] for message in messages
    ]
    assert identities[0] == identities[1] == identities[2]
    assert refresh_of(ALERTMANAGER) is not None
    assert refresh_of(ALERTMANAGER) < alertmanager.OUTLIVES / 3  # type: ignore[operator]
    assert [refresh_of(receiver) for receiver in (PAGERDUTY, OPSGENIE, SLACK, WEBHOOK, None)] == [None] * 5


def test_a_receiver_that_knows_a_message_by_its_key_may_get_it_again() -> None:
    assert {kind for kind in KINDS if knows_again(KINDS[kind])} == {"pagerduty", "opsgenie", "alertmanager"}


def test_a_cut_says_that_something_is_left_out() -> None:
    assert [cut("abc", most) for most in (2, 3, 4)] == ["a…", "abc", "abc"]


# Answers.

OK: dict[str, httpx.Response] = {
    "pagerduty": httpx.Response(202, json={"status": "success", "message": "Event processed", "dedup_key": "k"}),
    "opsgenie": httpx.Response(202, json={"result": "Request will be processed", "took": 0.3, "requestId": "r"}),
    "slack": httpx.Response(200, text="ok"),
    "webhook": httpx.Response(204),
    "alertmanager": httpx.Response(200),
}
LOGIN = httpx.Response(200, html="<title>Sign in</title>")
#: What servers that speak these protocols answer when they have taken the message.
ODD: dict[str, httpx.Response] = {
    "ok, as HTML (Slack, Discord)": httpx.Response(200, html="ok"),
    '{"ok":true} (a workflow of Slack, Zulip)': httpx.Response(200, json={"ok": True, "result": "success"}),
    '{"success":true} (Rocket.Chat)': httpx.Response(200, json={"success": True}),
    "JSON without a word for it": httpx.Response(200, json={"id": 17, "ok": None}),
    "a list": httpx.Response(201, json=[]),
    "JSON that is none": httpx.Response(200, content=b"{", headers={"Content-Type": "application/json"}),
    "deep JSON": httpx.Response(200, text="[" * 100_000),
    "nothing, 200": httpx.Response(200),
    "nothing, 202": httpx.Response(202),
    "nothing, 204": httpx.Response(204),
    "1 (Teams)": httpx.Response(200, text="1"),
    "words": httpx.Response(200, text="Message queued, error budget untouched"),
}


async def send(to: Receiver, answer: httpx.Response) -> str:
    http = open_http(transport=httpx.MockTransport(lambda _request: answer))
    async with http:
        return await Sender(http, ManualClock()).send(to, PLAIN)


async def refused(to: Receiver, answer: httpx.Response) -> TargetError:
    with pytest.raises(TargetError) as raised:
        await send(to, answer)
    return raised.value


KINDS = {receiver.kind: receiver for receiver in (PAGERDUTY, OPSGENIE, SLACK, WEBHOOK, ALERTMANAGER)}
each = pytest.mark.parametrize("kind", KINDS)


@each
async def test_its_own_yes_is_taken(kind: str) -> None:
    assert (await send(KINDS[kind], OK[kind])).startswith(f"{kind} answered 20")


@each
@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
async def test_any_2xx_has_taken_the_message(kind: str, answer: httpx.Response) -> None:
    assert (await send(KINDS[kind], answer)).startswith(f"{kind} answered {answer.status_code}")


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"ok": False, "error": "invalid_workflow_input"}),
        httpx.Response(200, text='{"ok":false,"error":"not_authed"}'),
        httpx.Response(202, json={"success": False, "error": "error-running-script"}),
    ],
)
async def test_what_slack_and_rocket_chat_document_as_an_error_is_one_also_with_a_2xx(answer: httpx.Response) -> None:
    error = await refused(SLACK, answer)
    assert (type(error), error.code) == (Refused, "refused")
    assert (await send(WEBHOOK, answer)).startswith("webhook answered 20"), "our own protocol has no such error"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "webhook"])
async def test_the_login_page_of_a_proxy_is_no_yes(kind: str) -> None:
    error = await refused(KINDS[kind], LOGIN)
    assert (type(error), error.code) == (Refused, "unexpected_answer")


STATUSES: list[tuple[int, type[TargetError], str]] = [
    (400, Rejected, "rejected"),
    (413, Rejected, "rejected"),
    (422, Rejected, "rejected"),
    (401, Refused, "key_rejected"),
    (403, Refused, "forbidden"),
    (404, Refused, "not_found"),
    (410, Refused, "not_found"),
    (302, Refused, "redirect"),
    (418, Refused, "refused"),
    (408, Unreachable, "busy"),
    (429, Unreachable, "busy"),
    (500, Ambiguous, "server_error"),
    (503, Ambiguous, "server_error"),
]


@each
@pytest.mark.parametrize(("status", "error", "code"), STATUSES)
async def test_what_a_status_means(kind: str, status: int, error: type[TargetError], code: str) -> None:
    found = await refused(KINDS[kind], httpx.Response(status, text="no", headers={"Retry-After": "77"}))
    assert (type(found), found.code) == (error, code)
    assert found.retry_after == (77 if status in (408, 429) or status >= 500 else None)
    assert str(status) in found.detail


@each
async def test_a_secret_that_an_answer_repeats_is_not_kept(kind: str) -> None:
    to = KINDS[kind]
    for secret in to.secrets():
        error = await refused(to, httpx.Response(400, text=f"bad: {secret}"))
        assert secret not in error.detail
        assert LEFT_OUT in error.detail
    assert len(to.secrets()) == {"webhook": 2, "alertmanager": 0}.get(kind, 1)


def test_times_are_told_in_utc() -> None:
    assert PAGERDUTY.pagerduty
    moment = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
    asked = pagerduty.request(PAGERDUTY.pagerduty, replace(PLAIN, opened_at=moment))
    assert asked.json["payload"]["timestamp"] == "2026-03-29T01:30:00.000Z"
