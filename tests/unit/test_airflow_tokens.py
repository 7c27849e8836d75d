"""How the gateway is let in: one token at a time, renewed before it ends, and never told to anybody."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from app.kit.airflow.auth import REFUSED_FOR, open_tokens, renew_after, token_life
from app.kit.airflow.client import PasswordAuth
from app.kit.errors import Refused, TargetError, Unreachable
from tests.fakes.airflow import FakeAirflow
from tests.fakes.clock import NOON
from tests.fakes.faults import Fault, answer, busy, drop, meanwhile, page, redirect, refuse, timeout
from tests.fakes.proxies import rewording
from tests.unit.airflow_site import Site, jwt

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("life", "age"),
    [
        pytest.param(24 * HOUR, timedelta(hours=19, minutes=12), id="a day: at 80 %"),
        pytest.param(HOUR, timedelta(minutes=48), id="an hour: at 80 %"),
        pytest.param(timedelta(minutes=5), timedelta(minutes=4), id="five minutes: both are the same"),
        pytest.param(timedelta(minutes=3), timedelta(minutes=2), id="three minutes: 60 s before its end"),
        pytest.param(timedelta(minutes=2), timedelta(minutes=1), id="two minutes"),
        pytest.param(timedelta(seconds=10), timedelta(seconds=5), id="ten seconds: at its half"),
    ],
)
def test_a_token_is_renewed_early_enough_and_not_at_every_call(life: timedelta, age: timedelta) -> None:
    assert renew_after(life) == age


NOON_S = NOON.timestamp()


@pytest.mark.parametrize(
    ("token", "life"),
    [
        pytest.param(jwt(iat=NOON_S, exp=NOON_S + 60), timedelta(seconds=60), id="exp and iat"),
        pytest.param(
            jwt(iat=NOON_S - 9e6, exp=NOON_S - 9e6 + 60), timedelta(seconds=60), id="a clock months behind ours"
        ),
        pytest.param(jwt(exp=NOON_S + 60), timedelta(seconds=60), id="exp alone: by our clock"),
        pytest.param(jwt(exp=NOON_S - 60), None, id="exp alone, gone by"),
        pytest.param(jwt(iat=NOON_S, exp=NOON_S), None, id="no life at all"),
        pytest.param(jwt(), None, id="no exp"),
        pytest.param(jwt(exp="soon"), None, id="exp is a word"),
        pytest.param(jwt(exp=None), None, id="exp is null"),
        pytest.param(jwt(exp=1e300), None, id="exp is out of range"),
        pytest.param("opaque", None, id="not a JWT"),
        pytest.param("a.b.c", None, id="not base64"),
        pytest.param("a.é.c", None, id="not ASCII"),
        pytest.param("a.WzFd.c", None, id="a list"),
        pytest.param("a.." + "c", None, id="empty"),
    ],
)
def test_the_life_of_a_token_is_read_from_it_or_unknown(token: str, life: timedelta | None) -> None:
    assert token_life(token, NOON) == life


async def test_one_login_serves_many_calls() -> None:
    site = Site()
    for _ in range(5):
        await site.client.dag("d")
    assert site.logins() == 1


async def test_a_token_is_renewed_before_it_ends_so_that_airflow_never_refuses_one() -> None:
    site = Site(token_life=HOUR)
    for _ in range(24 * 6):
        await site.client.dag("d")
        site.clock.pass_by(timedelta(minutes=10))
    assert all(seen.status == 200 for seen in site.fake.calls("dag"))
    assert site.logins() == 29, "a renewal at the first call after each 48 minutes: every 50 of 1430 minutes"


def rotate_and_reword(fake: FakeAirflow) -> None:
    fake.rotate_secret()
    fake.proxy = rewording({"detail": "No autorizado"})


REVOKED: list[Any] = [
    pytest.param(lambda fake: fake.expire_tokens(), id="401 Token Expired"),
    pytest.param(lambda fake: fake.rotate_secret(), id="403 Invalid JWT token"),
    pytest.param(rotate_and_reword, id="403 in other words"),
]


@pytest.mark.parametrize("revoke", REVOKED)
async def test_a_refused_token_costs_one_login_and_the_call_is_made_once_more(
    revoke: Callable[[FakeAirflow], None],
) -> None:
    site = Site()
    await site.client.dag("d")
    revoke(site.fake)
    run = await site.client.trigger("d", "gateway__r__1", {}, "note")
    assert run.state == "queued"
    assert site.logins() == 2
    assert len(site.fake.calls("trigger")) == 2
    assert len(site.fake.posts) == 1


@pytest.mark.parametrize("revoke", REVOKED)
async def test_a_token_that_is_refused_again_is_named_and_not_tried_a_third_time(
    revoke: Callable[[FakeAirflow], None],
) -> None:
    site = Site()
    site.fake.disturb(meanwhile(lambda: revoke(site.fake)), on="trigger", times=None)
    with pytest.raises(Refused) as raised:
        await site.client.trigger("d", "gateway__r__1", {}, "note")
    assert raised.value.code == "token_rejected"
    assert len(site.fake.calls("trigger")) == 2
    assert site.fake.posts == []


async def test_a_missing_permission_is_not_taken_for_a_bad_token() -> None:
    site = Site(PasswordAuth("reader", "reader-password"))
    with pytest.raises(Refused) as raised:
        await site.client.trigger("d", "gateway__r__1", {}, "note")
    assert raised.value.code == "forbidden"
    assert site.logins() == 1


async def test_callers_that_come_together_share_one_login() -> None:
    site = Site()
    await asyncio.gather(*(site.client.dag("d") for _ in range(50)))
    assert site.logins() == 1


@pytest.mark.parametrize("revoke", REVOKED)
async def test_callers_whose_token_is_refused_together_share_one_login(revoke: Callable[[FakeAirflow], None]) -> None:
    site = Site()
    await site.client.dag("d")
    revoke(site.fake)
    await asyncio.gather(*(site.client.dag("d") for _ in range(50)))
    assert site.logins() == 2


async def test_callers_that_wait_for_a_failing_login_share_its_failure() -> None:
    site = Site()
    site.fake.disturb(timeout(), on="login")
    results = await asyncio.gather(*(site.client.dag("d") for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} == {Unreachable}
    assert len({id(result) for result in results}) == 50, "each caller gets an error of its own to add its traceback to"
    assert site.logins() == 1
    assert (await site.client.dag("d")).dag_id == "d", "the next caller logs in again"


async def test_a_refusal_that_comes_late_does_not_throw_away_the_new_token() -> None:
    site = Site()
    tokens = open_tokens(
        PasswordAuth(site.fake.username, site.fake.password), site.http, site.fake.url, site.clock, basic=False
    )
    old = await tokens.current()
    new = await tokens.after_refusal(old)
    assert new != old
    assert await tokens.after_refusal(old) == new
    assert site.logins() == 2


@pytest.mark.parametrize("failed_before", [False, True])
async def test_a_login_that_is_cancelled_leaves_nothing_behind(failed_before: bool) -> None:
    site = Site()
    if failed_before:
        site.fake.disturb(refuse(), on="login")
        with pytest.raises(Unreachable):
            await site.client.dag("d")
    task = asyncio.create_task(site.client.dag("d"))
    waiting = asyncio.create_task(site.client.dag("d"))
    await asyncio.sleep(0)  # Lets both come as far as the login, not further.
    task.cancel()
    assert (await waiting).dag_id == "d"
    assert task.cancelled()


LOGIN_FAILURES: list[Any] = [
    pytest.param(refuse(), Unreachable, "connect", id="refused"),
    pytest.param(timeout(), Unreachable, "timeout", id="a lost login is no lost trigger"),
    pytest.param(drop(after_commit=True), Unreachable, "disconnected", id="dropped after the login"),
    pytest.param(busy(3), Unreachable, "busy", id="429"),
    pytest.param(answer(500), Unreachable, "server_error", id="500"),
    pytest.param(answer(503), Unreachable, "server_error", id="503"),
    pytest.param(answer(401, {"detail": "Invalid credentials"}), Refused, "token_rejected", id="401"),
    pytest.param(answer(422, {"detail": "input_value={'password': 'x'}"}), Refused, "token_rejected", id="422"),
    pytest.param(answer(403, {"detail": "Forbidden"}), Refused, "forbidden", id="403"),
    pytest.param(answer(404, {"detail": "Not Found"}), Refused, "not_airflow", id="404: Airflow 2 has no such address"),
    pytest.param(page(), Refused, "not_airflow", id="a page"),
    pytest.param(page(401), Refused, "not_airflow", id="401 with a page"),
    pytest.param(page(403), Refused, "not_airflow", id="403 with a page"),
    pytest.param(redirect("http://sso.test/"), Refused, "not_airflow", id="a redirect"),
    pytest.param(answer(201, {"token": "x"}), Refused, "not_airflow", id="201 without a token"),
    pytest.param(answer(201, {"access_token": ""}), Refused, "not_airflow", id="201 with an empty token"),
    pytest.param(answer(201, {"access_token": "a\nb"}), Refused, "token_rejected", id="201 with a token of two lines"),
]


@pytest.mark.parametrize(("fault", "kind", "code"), LOGIN_FAILURES)
async def test_a_login_that_fails_is_named_and_nothing_is_posted(
    fault: Fault, kind: type[TargetError], code: str
) -> None:
    site = Site()
    site.fake.disturb(fault, on="login")
    with pytest.raises(TargetError) as raised:
        await site.client.trigger("d", "gateway__r__1", {}, "note")
    assert (type(raised.value), raised.value.code) == (kind, code)
    assert site.fake.calls("trigger") == []
    site.clock.pass_by(REFUSED_FOR if kind is Refused else timedelta(0))
    assert (await site.client.trigger("d", "gateway__r__1", {}, "note")).state == "queued", "the next call logs in"


async def test_what_airflow_refuses_is_not_tried_for_each_of_many_calls() -> None:
    """Forty triggers with a wrong password are no forty logins: an account is locked after a few."""
    site = Site(PasswordAuth("gateway", "wrong"))
    refusals = set()
    for _ in range(40):
        with pytest.raises(Refused) as raised:
            await site.client.dag("d")
        refusals.add((raised.value.code, raised.value.detail))
        site.clock.pass_by(timedelta(seconds=1))
    assert site.logins() == 1
    assert len(refusals) == 1
    site.fake.users["gateway"] = "wrong"  # Somebody has set it in Airflow.
    site.clock.pass_by(timedelta(seconds=20))
    assert (await site.client.dag("d")).dag_id == "d"
    assert site.logins() == 2


async def test_a_wrong_password_names_the_user_and_where_to_look() -> None:
    site = Site(PasswordAuth("gateway", "wrong"))
    with pytest.raises(Refused, match=r"user 'gateway'.*airflow\.auth"):
        await site.client.dag("d")


async def test_without_auth_no_token_is_sent() -> None:
    site = Site(all_admins=True)
    client = site.client_with(None)
    assert (await client.trigger("d", "gateway__r__1", {}, "note")).state == "queued"
    assert site.logins() == 0
    assert "authorization" not in site.fake.calls("trigger")[0].call.headers


async def test_health_is_asked_without_a_token_so_that_a_bad_password_does_not_hide_it() -> None:
    site = Site(PasswordAuth("gateway", "wrong"))
    assert (await site.client.health()).can_run
    assert site.logins() == 0
