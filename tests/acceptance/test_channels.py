"""A channel that does not know a message again gets no flood: whatever it answers, the tries of one notice are counted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from app.notices.delivery import MOST_TRIES
from tests.acceptance.world import World, policy
from tests.fakes.clock import ManualClock
from tests.servers import TestServers
from tests.sizes import size
from tests.unit.test_receivers import SECRET

SWITCH = "deadman: [{name: export, expect: heartbeat, every: 1h, grace: 1m, repeat: 7d}]\n"
RECEIVERS = {
    "slack": 'receivers: [{name: people, slack: {url: "http://channel.test/hook"}}]\n',
    "webhook": f'receivers: [{{name: people, webhook: {{url: "http://channel.test/hook", secret: {SECRET}}}}}]\n',
    "alertmanager": 'receivers: [{name: people, alertmanager: {url: "http://channel.test"}}]\n',
}
Answer = Callable[[], httpx.Response]


def dropped() -> httpx.Response:
    raise httpx.ReadTimeout("")


def refused() -> httpx.Response:
    raise httpx.ConnectError("refused")


class Channel:
    """Takes every message that reaches it, whatever it then answers. `messages` has the bodies."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.messages: list[bytes] = []

    def transport(self) -> httpx.AsyncBaseTransport:
        def handle(request: httpx.Request) -> httpx.Response:
            answer = self.answer()
            self.messages.append(request.content)
            return answer

        return httpx.MockTransport(handle)


@asynccontextmanager
async def down(servers: TestServers, database: str, kind: str, answer: Answer) -> AsyncIterator[tuple[World, Channel]]:
    """A switch is down, and its notice is on its way to the channel."""
    clock = ManualClock()
    channel = Channel(answer)
    text = policy() + RECEIVERS[kind] + SWITCH
    async with World(servers, database, text, clock=clock, others={"channel.test": channel}) as world:
        await world.settle()
        await world.pass_by(minutes=62)
        yield world, channel


async def opening(world: World) -> dict[str, Any]:
    """What became of the notice at its receiver."""
    [notice] = (await world.get("/api/v1/notices"))["items"]
    [receiver] = notice["receivers"]
    found: dict[str, Any] = receiver["opened"]
    return found


TAKEN: dict[str, Answer] = {
    "ok": lambda: httpx.Response(200, text="ok"),
    '{"ok":true}': lambda: httpx.Response(200, json={"ok": True}),
    '{"success":true}': lambda: httpx.Response(200, json={"success": True}),
    "nothing": lambda: httpx.Response(204),
}


@pytest.mark.parametrize("answer", TAKEN.values(), ids=TAKEN)
async def test_a_channel_that_took_the_message_gets_it_once(
    servers: TestServers, database: str, answer: Answer
) -> None:
    async with down(servers, database, "slack", answer) as (world, channel):
        await world.pass_by(hours=12, steps=24)
        assert len(channel.messages) == 1
        assert (await opening(world))["state"] == "delivered"


UNCLEAR: dict[str, tuple[str, Answer]] = {
    "500": ("slack", lambda: httpx.Response(500)),
    "503": ("webhook", lambda: httpx.Response(503)),
    "a web page": ("slack", lambda: httpx.Response(200, html="<h1>Welcome</h1>")),
    "no answer": ("webhook", dropped),
}


@pytest.mark.parametrize("name", size(["a web page", "no answer"], list(UNCLEAR)))
async def test_a_channel_that_may_have_taken_it_gets_it_a_few_times_and_then_it_is_dead_by_name(
    servers: TestServers, database: str, name: str
) -> None:
    kind, answer = UNCLEAR[name]
    async with down(servers, database, kind, answer) as (world, channel):
        await world.pass_by(hours=1, steps=20)
        assert (await opening(world))["state"] == "pending", "an outage of an hour loses nothing"
        await world.pass_by(hours=12, steps=36)
        assert (await opening(world))["state"] == "dead"
        assert (await opening(world))["detail"].startswith(f"given up: each of {MOST_TRIES} tries may have arrived")
        messages = len(channel.messages)
        assert messages == (0 if answer is dropped else MOST_TRIES)
        await world.pass_by(hours=24, steps=6)
        assert len(channel.messages) == messages
        channel.answer = TAKEN["ok"]
        [notice] = (await world.get("/api/v1/notices"))["items"]
        await world.post(f"/api/v1/notices/{notice['id']}/redrive", b"")
        await world.settle()
        assert len(channel.messages) == messages + 1
        assert (await opening(world))["state"] == "delivered"


async def test_what_surely_did_not_arrive_is_tried_as_long_as_it_takes(servers: TestServers, database: str) -> None:
    async with down(servers, database, "slack", refused) as (world, channel):
        await world.pass_by(hours=24, steps=48)
        channel.answer = lambda: httpx.Response(429, headers={"Retry-After": "60"})
        await world.pass_by(hours=1, steps=30)
        assert (await opening(world))["state"] == "pending"
        channel.messages.clear()
        channel.answer = TAKEN["ok"]
        await world.pass_by(minutes=5, steps=3)
        assert (len(channel.messages), (await opening(world))["state"]) == (1, "delivered")


async def test_a_receiver_that_knows_a_message_again_is_tried_as_long_as_it_takes(
    servers: TestServers, database: str
) -> None:
    async with down(servers, database, "alertmanager", UNCLEAR["500"][1]) as (world, channel):
        await world.pass_by(hours=24, steps=48)
        assert len(channel.messages) > 2 * MOST_TRIES
        assert (await opening(world))["state"] == "pending"
        channel.answer = lambda: httpx.Response(200)
        await world.pass_by(minutes=2, steps=2)
        assert (await opening(world))["state"] == "delivered"


async def test_a_pause_of_one_notice_holds_up_no_other(servers: TestServers, database: str) -> None:
    async with down(servers, database, "slack", UNCLEAR["500"][1]) as (world, channel):
        await world.pass_by(minutes=30, steps=30)
        channel.answer = TAKEN["ok"]
        before = len(channel.messages)
        world.airflow.add_dag("retrain_model")
        world.airflow.remove_dag("retrain_model")
        asked = asyncio.create_task(world.post("/api/v1/receivers/people/test", b""))
        while not asked.done():  # The answer comes when the test is sent.
            await world.settle()
            await asyncio.sleep(0.01)
        assert (asked.result().status_code, asked.result().json()["state"]) == (200, "delivered")
        assert len(channel.messages) > before
