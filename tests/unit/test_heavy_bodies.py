"""Bodies that are made to take long: their parts are counted before they are looked at."""

import asyncio
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from app.decide.alert import Parsed, Unreadable
from app.groups.bodies import TriggerBody
from app.intake.sources import alertmanager, cloudevents, grafana, native
from app.lineage.report_schemas import HandOver, Report
from app.web.heavy import MOST_DEPTH, aside, within_depth
from tests.integration.api import cloud_event, native_alert, webhook_alert

MOST = 10_000
EMPTY = b"[" + b",".join([b"{}"] * 1_390_000) + b"]"
MANY = {f"a{number}": 1 for number in range(380_000)}


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


HEAVY: dict[str, tuple[Callable[[bytes, int], Parsed], bytes]] = {
    "a million empty alerts": (alertmanager.read, b'{"alerts":' + EMPTY + b"}"),
    "a million empty alerts of Grafana": (grafana.read, b'{"alerts":' + EMPTY + b"}"),
    "a million empty alerts of our own form": (native.read, EMPTY),
    "a million empty events": (lambda raw, most: cloudevents.read(raw, most, {}), EMPTY),
    "an alert with 380,000 bad labels": (alertmanager.read, text({"alerts": [webhook_alert() | {"labels": MANY}]})),
    "an alert with 380,000 unknown members": (native.read, text([native_alert() | MANY])),
    "an event whose data has 380,000 unknown members": (
        lambda raw, most: cloudevents.read(raw, most, {}),
        text([cloud_event(**MANY)]),
    ),
    "a large body of empty alerts that are not too many": (native.read, b"[" + b",".join([b"{}      "] * 9_000) + b"]"),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_body_made_to_take_long_is_refused_at_once(name: str) -> None:
    read, raw = HEAVY[name]
    began = time.thread_time()
    json.loads(EMPTY)
    yardstick, began = time.thread_time() - began, time.thread_time()
    with pytest.raises(Unreadable) as refused:
        read(raw, MOST)
    assert time.thread_time() - began < 15 * yardstick  # It was 30 to 60 times the work of a parser.
    assert refused.value.status in (413, 422)
    assert len(refused.value.errors) <= 100


def test_a_small_alert_with_too_many_labels_has_one_error() -> None:
    labels = {f"a{number}": 1 for number in range(2_000)}
    with pytest.raises(Unreadable) as refused:
        alertmanager.read(text({"alerts": [webhook_alert() | {"labels": labels}]}), MOST)
    assert refused.value.errors == [{"pointer": "/0", "message": "`labels` has 2000 entries, and may have 128"}]


def test_a_large_body_of_good_alerts_is_read_as_a_small_one_is() -> None:
    alerts = [webhook_alert(model=f"m{number}") for number in range(MOST)]
    whole = alertmanager.read(text({"alerts": alerts}), MOST)
    assert (len(whole.alerts), whole.bad) == (MOST, [])
    assert whole.alerts[7] == alertmanager.read(text({"alerts": alerts[7:8]}), MOST).alerts[0]


REPORT = {"component": "training", "state": "succeeded", "run": "1"}


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (Report, REPORT | {"params": {f"p\n{number}": [] for number in range(300_000)}}),
        (Report, REPORT | {f"x{number}": 1 for number in range(300_000)}),
        (Report, REPORT | {"datasets": [{}] * 300_000}),
        (HandOver, {"records": [{}] * 1_000}),
        (HandOver, {"records": [{}] * 300_000}),
        (TriggerBody, {"route": "a", "reason": "b", "group": MANY}),
    ],
)
def test_a_body_of_the_api_with_too_many_parts_has_few_errors(model: Any, body: Any) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(body)
    assert refused.value.error_count() <= 100


def test_kept_json_is_32_deep_at_most() -> None:
    deep: Any = "x"
    for _ in range(MOST_DEPTH):
        deep = [deep]
    assert within_depth(deep) is deep
    assert within_depth({"flat": [1, "a", None]})
    for wrong in ([deep], {"a": deep}):
        with pytest.raises(ValueError, match="deeper than 32"):
            within_depth(wrong)


def test_only_short_times_stay_in_memory() -> None:
    long = "2026-11-24T12:00:00." + "0" * 200_000 + "Z"
    alertmanager.read(text({"alerts": [webhook_alert() | {"startsAt": long}]}), MOST)
    assert long not in alertmanager._times


class Body:
    """Something that a weak reference can follow."""


async def test_a_body_whose_sender_has_gone_is_free_though_another_is_being_read() -> None:
    entered, free = threading.Event(), threading.Event()

    def read() -> bool:
        entered.set()
        return free.wait(30)

    reading = asyncio.create_task(aside(read))
    await asyncio.to_thread(entered.wait, 30)
    body = Body()
    seen = weakref.ref(body)
    waiting = asyncio.create_task(aside(id, body))
    await asyncio.sleep(0)
    del body
    assert seen() is not None
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    del waiting
    gc.collect()
    assert seen() is None
    free.set()
    assert await reading
