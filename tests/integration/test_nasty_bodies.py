"""What nobody should send: the answer is a problem or a quarantine, never a 5xx, and the good alerts are decided."""

import gzip
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
import pytest_asyncio

from tests.acceptance.world import World
from tests.integration.api import (
    ALERTMANAGER,
    CLOUDEVENTS,
    GRAFANA,
    NATIVE,
    cloud_event,
    native_alert,
    notification,
    opened,
    problem,
    webhook_alert,
    word,
)
from tests.servers import TestServers

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_BODY = 700_000
MAX_ALERTS = 150


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(servers: TestServers, template: str) -> AsyncIterator[World]:
    """One gateway for all of them: it must be alive after each."""
    database = servers.fresh_database(template)
    async with opened(servers, database, max_body=MAX_BODY, max_alerts=MAX_ALERTS) as opened_world:
        yield opened_world


async def alive(world: World) -> None:
    """A new alert is still taken and decided."""
    answer = await world.post(NATIVE, native_alert(labels={"model": word()}))
    assert answer.status_code == 202, answer.text
    assert answer.json()["decisions"][0]["action"] == "fire"
    # The probe gives Postgres three seconds, which a busy machine may need once.
    assert 200 in [(await world.clients[0].get("/readyz")).status_code for _ in range(3)]


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


every_source = pytest.mark.parametrize(
    "path", [ALERTMANAGER, GRAFANA, CLOUDEVENTS, NATIVE], ids=["alertmanager", "grafana", "cloudevents", "native"]
)

NESTED = b"[" * 50_000 + b"]" * 50_000
HUGE = b"1" + b"0" * 10_000

WHOLE_BODIES: dict[str, tuple[bytes, int]] = {
    "empty": (b"", 400),
    "blank": (b"  \n ", 400),
    "not JSON": (b"accuracy is low", 400),
    "XML": (b"<alert/>", 400),
    "cut off": (b'{"alerts": [{"status": "fir', 400),
    "two values": (b"{} {}", 400),
    "not UTF-8": (b'{"alerts": "\xff\xfe"}', 400),
    "UTF-16": ('{"alerts": []}'.encode("utf-16"), 422),
    "a byte order mark": (b"\xef\xbb\xbf{}", 422),
    "NUL bytes": (b"\x00" * 100, 400),
    "a raw control character": (b'{"alert_id": "a\x01b"}', 400),
    "deep lists": (NESTED, 400),
    "deep objects": (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, 400),
    "null": (b"null", 422),
    "a number": (b"7", 422),
    "a huge number": (HUGE, 422),
    "NaN": (b"NaN", 422),
    "a string": (b'"alerts"', 422),
    "true": (b"true", 422),
    "an empty list": (b"[]", 422),
    "a list of null": (b"[null]", 422),
    "a list of lists": (b"[[],[]]", 422),
    "an empty object": (b"{}", 422),
    "no alerts": (b'{"version": "4", "alerts": []}', 422),
    "alerts of null": (b'{"version": "4", "alerts": null}', 422),
    "alerts as object": (b'{"version": "4", "alerts": {"0": {}}}', 422),
    "alerts of numbers": (b'{"version": "4", "alerts": [1, 2, NaN]}', 422),
    "another version": (b'{"version": "3", "alerts": [{}]}', 422),
    "a huge version": (b'{"version": ' + HUGE + b', "alerts": [{}]}', 422),
    "alerts of huge numbers": (b'{"version": "4", "alerts": [' + HUGE + b"]}", 422),
    "NaN and Infinity inside": (b'[{"alert_id": NaN, "severity": Infinity, "timestamp": -Infinity}]', 422),
    "duplicate keys": (b'{"alerts": [{}], "alerts": []}', 422),
    "nested a little": (b'{"alerts": [' + b"[" * 100 + b"]" * 100 + b"]}", 422),
    "nested up to the parser's limit": (b'{"alerts": [' + b"[" * 900 + b"]" * 900 + b"]}", 422),
}


@every_source
@pytest.mark.parametrize(("body", "status"), WHOLE_BODIES.values(), ids=WHOLE_BODIES.keys())
async def test_a_body_of_which_nothing_can_be_read_is_a_problem(
    world: World, path: str, body: bytes, status: int
) -> None:
    answer = await world.post(path, body)
    assert answer.status_code in ({status} if status == 400 else {400, 422}), answer.text
    problem(answer, answer.status_code, {400: "bad_request", 422: "invalid"}[answer.status_code])
    await alive(world)


@every_source
@pytest.mark.parametrize(
    ("encoding", "status", "code"),
    [("gzip", 413, "too_large"), ("deflate", 400, "bad_request"), ("br", 415, "unsupported_encoding")],
)
async def test_a_bomb_is_not_unpacked(world: World, path: str, encoding: str, status: int, code: str) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    answer = await world.clients[0].post(path, content=bomb, headers={"Content-Encoding": encoding})
    problem(answer, status, code)


async def test_line_breaks_in_an_attribute_stay_text(world: World) -> None:
    subject = "churn\r\nSet-Cookie: a=b\r\n{"
    attributes = {"id": word(), "source": "/monitor", "type": "drift", "specversion": "1.0", "subject": quote(subject)}
    headers = {f"ce-{name}": value for name, value in attributes.items()} | {"ce-time": "2026-11-23T03:00:00Z"}
    answer = await world.clients[0].post(CLOUDEVENTS, json={"severity": "info"}, headers=headers)
    assert (answer.status_code, "set-cookie" in answer.headers) == (202, False)
    [alert] = (await world.get("/api/v1/alerts", label=f"subject={subject}"))["items"]
    assert alert["alert_id"] == attributes["id"]


@every_source
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_a_body_over_the_cap_is_refused_however_it_is_sent(world: World, path: str, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 50_000 + 2):
            yield b" " * 50_000

    content: Any = pieces() if chunked else b" " * (MAX_BODY + 1)
    answer = await world.clients[0].post(path, content=content)
    assert problem(answer, 413, "too_large")["limit"] == MAX_BODY
    await alive(world)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (ALERTMANAGER, notification(*[webhook_alert("Unmatched")] * (MAX_ALERTS + 1))),
        (ALERTMANAGER, notification(*[{}] * (MAX_ALERTS + 1))),
        (GRAFANA, notification(*[webhook_alert("Unmatched")] * (MAX_ALERTS + 1))),
        (CLOUDEVENTS, [cloud_event()] * (MAX_ALERTS + 1)),
        (NATIVE, [native_alert("unmatched")] * (MAX_ALERTS + 1)),
        (NATIVE, [1] * (MAX_ALERTS + 1)),
    ],
    ids=["alertmanager", "alertmanager, bad ones", "grafana", "cloudevents", "native", "native, bad ones"],
)
async def test_more_alerts_than_the_cap_are_refused(world: World, path: str, body: Any) -> None:
    answer = problem(await world.post(path, body), 413, "too_large")
    assert f"{MAX_ALERTS + 1} alerts" in answer["detail"]


def but(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    """A good alert with some members changed; `None`-valued ones stay, `...` removes one."""

    def change(alert: dict[str, Any]) -> Any:
        return {name: value for name, value in (alert | changes).items() if value is not ...}

    return change


def label(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    """A good alert with one label more, or another one."""
    return lambda alert: alert | {"labels": alert.get("labels", {}) | {name: value}}


def raw(value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda _: value


WRONG: list[Any] = [None, 7, 1.5, True, [], {"a": 1}, "", "x" * 5000]
HARD = {"NUL": "a\x00b", "a lone surrogate": "a\ud800b", "a low surrogate": "\udfff"}
DATES = {
    "year 0": "0000-01-01T00:00:00Z",
    "year 1": "0001-01-01T00:00:00Z",
    "before 1970": "1969-12-31T23:59:59Z",
    "2200": "2200-01-01T00:00:00Z",
    "9999 and an offset": "9999-12-31T23:59:59-01:00",
    "year 1 and an offset": "0001-01-01T00:00:00+01:00",
    "year 10000": "10000-01-01T00:00:00Z",
    "no offset": "2026-11-23T03:00:00",
    "no time": "2026-11-23",
    "13th month": "2026-13-01T00:00:00Z",
    "30th of February": "2026-02-30T00:00:00Z",
    "yesterday": "yesterday",
    "empty": "",
}
GO_ZERO = ("year 1", "year 1 and an offset")  # As endsAt it stands for "none".
ODD_TIMES: list[Any] = [None, True, [], {}, 10**30, -1e300]
WRONG_PRINTS: list[Any] = [7, [], "x" * 5000]
MANY_LABELS = {f"label{i}": "x" for i in range(10_000)}

Change = Callable[[dict[str, Any]], Any]
EITHER: dict[str, Change] = {
    "null": raw(None),
    "a number": raw(7),
    "a string": raw("alert"),
    "a list": raw([]),
    "an empty object": raw({}),
    "status unknown": but(status="maybe"),
    "labels a list": but(labels=["a"]),
    "labels a string": but(labels="a=b"),
    "annotations a list": but(annotations=["a"]),
    "annotations a number": but(annotations=7),
    "10,000 labels": but(labels=MANY_LABELS),
    "10,000 annotations": but(annotations=MANY_LABELS),
    "a label of kilobytes": label("long", "x" * 5000),
    "a label's name of kilobytes": label("x" * 5000, "long"),
    "a label without a name": label("", "x"),
    "an annotation's name of kilobytes": but(annotations={"x" * 5000: "long"}),
    "an annotation of a number": but(annotations={"a": 1}),
    **{f"a label of {value!r}": label("odd", value) for value in WRONG[:6]},
    **{f"{what} in a label": label("odd", value) for what, value in HARD.items()},
    **{f"{what} in a label's name": label(value, "odd") for what, value in HARD.items()},
    **{f"{what} in an annotation": but(annotations={"odd": value}) for what, value in HARD.items()},
    **{f"{what} in an annotation's name": but(annotations={value: "odd"}) for what, value in HARD.items()},
    **{f"{what} as status": but(status=value) for what, value in HARD.items()},
}
IN_WEBHOOK: dict[str, Change] = {
    **EITHER,  # What may be left out may be null: tests/unit/test_null.py.
    "status null": but(status=None),
    "labels null": but(labels=None),
    "no status": but(status=...),
    "no labels": but(labels=...),
    "no startsAt": but(startsAt=...),
    "an alertname of kilobytes": label("alertname", "é" * 3000),
    **{f"startsAt {what}": but(startsAt=value) for what, value in DATES.items()},
    **{f"startsAt {value!r}": but(startsAt=value) for value in ODD_TIMES},
    **{f"endsAt {what}": but(status="resolved", endsAt=value) for what, value in DATES.items() if what not in GO_ZERO},
    **{f"fingerprint {value!r:.20}": but(fingerprint=value) for value in WRONG_PRINTS},
    **{f"{what} in the fingerprint": but(fingerprint=value) for what, value in HARD.items()},
}
IN_NATIVE: dict[str, Change] = {
    **EITHER,
    "an unknown member": but(alertId="x"),
    **{f"no {name}": but(**{name: ...}) for name in ("alert_id", "severity", "timestamp")},
    **{f"alert_id {value!r:.20}": but(alert_id=value) for value in WRONG},
    **{f"severity {value!r:.20}": but(severity=value) for value in WRONG},
    **{f"timestamp {value!r:.20}": but(timestamp=value) for value in (*WRONG, 1_767_150_000, 10**400)},
    **{f"timestamp {what}": but(timestamp=value) for what, value in DATES.items()},
    **{f"{what} in {name}": but(**{name: v}) for name in ("alert_id", "severity") for what, v in HARD.items()},
}


@pytest.mark.parametrize("change", IN_WEBHOOK.values(), ids=IN_WEBHOOK.keys())
async def test_one_bad_alert_among_99_good_ones_of_a_webhook_stands_alone_in_quarantine(
    world: World, change: Change
) -> None:
    good = [webhook_alert("Unmatched", n=str(n), model=word()) for n in range(99)]
    bad = change(webhook_alert("Unmatched", model=word()))
    await one_among_99(world, ALERTMANAGER, notification(*good[:40], bad, *good[40:]), [a["fingerprint"] for a in good])


@pytest.mark.parametrize("change", IN_NATIVE.values(), ids=IN_NATIVE.keys())
async def test_one_bad_alert_among_99_good_native_ones_stands_alone_in_quarantine(world: World, change: Change) -> None:
    good = [native_alert(f"unmatched-{word()}") for _ in range(99)]
    bad = change(native_alert(f"unmatched-{word()}"))
    await one_among_99(world, NATIVE, [*good[:40], bad, *good[40:]], [a["alert_id"] for a in good])


async def one_among_99(world: World, path: str, body: Any, good: list[str]) -> None:
    """The 40th (counted from 0) is told in the answer and kept; the others are decided in the order of the body."""
    world.clock.pass_by(timedelta(seconds=1))  # What is kept now is the newest in quarantine.
    answer = await world.post(path, text(body))
    assert answer.status_code == 202, answer.text
    answered = answer.json()
    known_by = "fingerprint" if path == ALERTMANAGER else "alert_id"
    assert [d[known_by] for d in answered["decisions"]] == good
    assert {d["reason"] for d in answered["decisions"]} == {"no_route"}
    [quarantined] = answered["quarantined"]
    assert list(quarantined) == ["index", "id", "error"]
    assert quarantined["index"] == 40
    assert quarantined["error"]
    [newest] = (await world.get("/api/v1/quarantine", limit=1))["items"]
    assert newest["error"] == quarantined["error"]
    await alive(world)


async def test_what_cannot_be_read_is_kept_once_and_counted_when_it_comes_again(world: World) -> None:
    world.clock.pass_by(timedelta(seconds=1))
    marked = {"status": "firing", "labels": {"alertname": "Unmatched", "model": f"é-{word()}"}, "startsAt": "never"}
    for _ in range(3):
        await world.post(ALERTMANAGER, notification(webhook_alert("Unmatched"), marked))
    [kept] = (await world.get("/api/v1/quarantine", limit=1))["items"]
    assert json.loads(kept["body"]) == marked
    assert (kept["count"], kept["source"]) == (3, "alertmanager")
    assert "startsAt" in kept["error"]
    assert kept["size"] >= len(kept["body"].encode())


async def test_a_body_that_is_refused_as_a_whole_is_kept_too(world: World) -> None:
    world.clock.pass_by(timedelta(seconds=1))
    sent = f"accuracy of {word()} is low".encode()
    problem(await world.post(NATIVE, sent), 400, "bad_request")
    [kept] = (await world.get("/api/v1/quarantine", limit=1))["items"]
    assert kept["body"] == sent.decode()
    assert kept["error"].startswith("the body is not JSON")


TEXTS = {
    "emoji": "🔥 accuracy 📉 👩‍👩‍👧‍👦",
    "right to left": "دقة النموذج منخفضة \u202e!",
    "combining": "e\u0301 \u0300",
    "beyond the BMP": "𝕄𝕠𝕕𝕖𝕝 𒀀",
    "control characters": "a\tb\nc\x01\x7f\x85\u2028",
    "quotes": """'";--\\ " {{group.model}} ${HOME} %s <script>""",
    "a noncharacter": "\ufffe\uffff\ufeff",
    "blank": "   ",
    "as long as it may be": "ß" * 4096,
}


@pytest.mark.parametrize("value", TEXTS.values(), ids=TEXTS.keys())
async def test_text_of_any_language_is_stored_and_shown_exactly(world: World, value: str) -> None:
    alert = webhook_alert("Unmatched", model=value) | {"annotations": {"summary": value, value[:100]: "x"}}
    native = native_alert(f"id-{value[:80]}-{word()}", labels={value[:100]: value})
    sent = [await world.post(ALERTMANAGER, text(notification(alert))), await world.post(NATIVE, text(native))]
    assert [a.status_code for a in sent] == [202, 202], [a.text for a in sent]
    found = (await world.get("/api/v1/alerts", limit=5))["items"]
    [shown] = [a for a in found if a["fingerprint"] == alert["fingerprint"]]
    assert shown["labels"] == alert["labels"]
    assert shown["annotations"] == alert["annotations"]
    [shown] = [a for a in found if a["alert_id"] == native["alert_id"]]
    assert shown["labels"] == {"alertname": native["alert_id"], "severity": "critical", **native["labels"]}


@pytest.mark.parametrize(
    ("length", "kept"), [(0, 0), (1, 1), (4096, 4096), (4097, 4096), (100_000, 4096)], ids=lambda n: str(n)
)
async def test_an_annotation_of_any_length_costs_no_alert_and_is_cut(world: World, length: int, kept: int) -> None:
    alert = webhook_alert("Unmatched", model=word()) | {"annotations": {"summary": "é" * length}}
    assert (await world.post(ALERTMANAGER, notification(alert))).json()["decisions"][0]["reason"] == "no_route"
    found = await world.get(f"/api/v1/explain/{alert['fingerprint']}")
    assert found["alert"]["annotations"] == {"summary": "é" * kept}


@pytest.mark.parametrize(
    "fingerprint", ["", "a", "f" * 128, "not hex at all", "🔥" * 64], ids=lambda f: f[:20] or "none"
)
async def test_a_fingerprint_of_any_length_is_an_identity(world: World, fingerprint: str) -> None:
    alert = webhook_alert("ModelAccuracyLow", model=word()) | {"fingerprint": fingerprint}
    first = (await world.post(ALERTMANAGER, notification(alert))).json()["decisions"][0]
    again = (await world.post(ALERTMANAGER, notification(alert))).json()["decisions"][0]
    assert (first["action"], again["reason"]) == ("fire", "duplicate")
    assert first["fingerprint"] == again["fingerprint"] == (fingerprint or first["fingerprint"])
    assert first["fingerprint"]


async def test_random_labels_as_long_as_they_may_be_are_indexed_and_found(world: World) -> None:
    hard = "".join(chr(0x4E00 + (i * 7919) % 20_000) for i in range(4096))  # Three bytes each, and hard to compress.
    alert = label(hard[:512], hard)(webhook_alert("Unmatched", model=hard))
    answer = await world.post(ALERTMANAGER, notification(alert))
    assert answer.json()["decisions"][0]["reason"] == "no_route", answer.text
    named = webhook_alert(hard[:512], model=hard)
    assert "quarantined" not in (await world.post(ALERTMANAGER, notification(named))).json()
    found = await world.get("/api/v1/alerts", label=f"model={hard}")
    assert {a["fingerprint"] for a in found["items"]} == {alert["fingerprint"], named["fingerprint"]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
async def test_a_body_with_a_byte_order_mark_is_read(world: World, encoding: str) -> None:
    body = json.dumps(native_alert(f"unmatched-é-{word()}"), ensure_ascii=False).encode(encoding)
    assert (await world.post(NATIVE, body)).json()["decisions"][0]["reason"] == "no_route"


async def test_the_last_of_duplicate_keys_holds(world: World) -> None:
    alert_id = f"unmatched-{word()}"
    body = text(native_alert("first")).replace(b'"first"', b'"first", "alert_id": "%s"' % alert_id.encode())
    [decision] = (await world.post(NATIVE, body)).json()["decisions"]
    assert decision["alert_id"] == alert_id
