"""Bodies that are made to take long: their parts are counted before they are looked at."""

import asyncio
import gc
import json
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from pydantic import ValidationError

from app.decide.alert import Parsed, Unreadable
from app.groups.bodies import TriggerBody
from app.intake.sources import alertmanager, cloudevents, grafana, native
from app.lineage.report_schemas import HandOver, Report
from app.web.heavy import MOST_DEPTH, Late, Turns, aside, is_heavy, within_depth
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


class Reading:
    """A thread that tokens share. It is busy with a body of token `a` until `free` is set, and notes what it reads."""

    def __init__(self) -> None:
        self.turns = Turns("test")
        self.read: list[str] = []
        self.free = threading.Event()
        self._entered = threading.Event()

    async def begin(self) -> "asyncio.Task[None]":
        first = self.send("a", "a0", self._hold)
        assert await asyncio.to_thread(self._entered.wait, 30)
        return first

    def send(self, lane: str, name: str, work: Callable[..., Any] = lambda: None, *given: Any) -> "asyncio.Task[Any]":
        def noted(*given: Any) -> Any:
            self.read.append(name)
            return work(*given)

        return asyncio.create_task(self.turns.take(lane, noted, *given, within=30))

    def _hold(self) -> None:
        self._entered.set()
        assert self.free.wait(30)


def slow() -> None:
    time.sleep(0.1)


#: What comes while the first body of `a` is read, in order of arrival, and what is read after it. Bodies with s take long.
TURNS = {
    "one of another": (["a1", "a2", "a3", "b1"], ["b1", "a1", "a2", "a3"]),
    "each keeps its order": (["a1", "a2", "b1", "b2", "b3"], ["b1", "b2", "b3", "a1", "a2"]),
    "who takes as long waits as long": (["b1s", "b2s", "b3s", "c1", "c2"], ["b1s", "c1", "c2", "b2s", "b3s"]),
    "alone": (["a1", "a2", "a3"], ["a1", "a2", "a3"]),
}


@pytest.mark.parametrize(("sent", "read"), TURNS.values(), ids=TURNS)
async def test_a_token_waits_for_the_body_under_way_and_not_for_all_that_another_sent(
    sent: list[str], read: list[str]
) -> None:
    reading = Reading()
    tasks = [await reading.begin()]
    for name in sent:
        tasks.append(reading.send(name[0], name, slow if name.endswith("s") else lambda: None))
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)  # So the first body has taken a while.
    reading.free.set()
    await asyncio.gather(*tasks)
    assert reading.read == ["a0", *read]


async def test_a_token_that_always_sends_the_next_body_does_not_keep_the_thread() -> None:
    """Its next body comes before that of another token, and after the thread has taken its last one that waited."""
    reading = Reading()
    first = await reading.begin()
    second = reading.send("a", "a1")
    await asyncio.sleep(0.01)
    other = reading.send("b", "b0")
    await asyncio.sleep(0)
    reading.free.set()
    await asyncio.gather(first, second, other)
    assert reading.read == ["a0", "b0", "a1"]


async def test_a_body_whose_turn_does_not_come_in_time_is_refused_and_free() -> None:
    reading = Reading()
    first = await reading.begin()
    body = Body()
    seen = weakref.ref(body)
    began = time.monotonic()
    late = asyncio.create_task(reading.turns.take("b", id, body, within=0.2))
    under_way = asyncio.create_task(reading.turns.take("c", id, 1, within=30))
    await asyncio.sleep(0)
    del body
    with pytest.raises(Late) as refused:
        await late
    assert 0.1 < time.monotonic() - began < 5
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "5"})
    del refused, late
    gc.collect()
    assert seen() is None
    reading.free.set()
    await asyncio.gather(first, under_way)
    assert await reading.turns.take("b", len, "three") == 5


async def test_nobody_waits_for_a_body_that_takes_too_long_itself() -> None:
    reading, free = Reading(), threading.Event()
    with pytest.raises(Late):
        await reading.turns.take("a", free.wait, 30, within=0.2)
    free.set()
    assert await reading.turns.take("b", len, "three") == 5


async def test_an_error_of_a_body_keeps_nothing_of_it() -> None:
    """A cycle would stay until the collector comes."""

    def refuse(body: Body) -> None:
        raise ValueError(str(body))

    body = Body()
    seen = weakref.ref(body)
    gc.disable()
    try:
        with suppress(ValueError):
            await aside("a", refuse, body)
        del body
        async with asyncio.timeout(10):  # The thread may not have come to its end yet.
            while seen() is not None:  # noqa: ASYNC110 (a thread, not a task)
                await asyncio.sleep(0.01)
    finally:
        gc.enable()


async def test_a_body_whose_sender_has_gone_is_free_though_another_is_being_read() -> None:
    entered, free = threading.Event(), threading.Event()

    def read() -> bool:
        entered.set()
        return free.wait(30)

    reading = asyncio.create_task(aside("a", read, within=60))
    await asyncio.to_thread(entered.wait, 30)
    body = Body()
    seen = weakref.ref(body)
    waiting = asyncio.create_task(aside("b", id, body))
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


@pytest.mark.parametrize(
    ("raw", "so"),
    [
        (b"{}," * 600, True),
        (b" " * 70_000, True),
        (json.dumps({"alerts": [webhook_alert(model=str(number)) for number in range(100)]}).encode(), False),
    ],
    ids=["many objects", "long", "a hundred alerts"],
)
def test_a_body_is_read_aside_when_its_parts_are_many(raw: bytes, so: bool) -> None:
    assert is_heavy(raw) is so
