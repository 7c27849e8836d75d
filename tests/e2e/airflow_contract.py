"""What the gateway relies on in Airflow, as a table of checks that run against the real ones, 3 and 2, and the fakes.

A check gets a Site: a client that is let in, the means to make others, and `until_ended`, which waits (the real Airflow)
or lets the clock run (the fake). The DAG folder holds `quick_dag` (succeeds in seconds), `always_fails`,
`paused_dag` and the file broken_dag.py, which does not import. Airflow's own database has to be PostgreSQL: on SQLite the
triggers at once can end its scheduler (measured with 3.3.2).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import uuid4

import pytest

from app.kit.airflow.client import AirflowClient, Auth, DagRun, PasswordAuth, TokenAuth, run_is_ours
from app.kit.airflow.probe import look
from app.kit.clock import Clock
from app.kit.errors import Ambiguous, Refused, Rejected
from app.kit.http import Http


@dataclass(frozen=True)
class Site:
    """One Airflow, real or not."""

    http: Http
    url: str
    username: str
    password: str
    clock: Clock
    until_ended: Callable[[AirflowClient, str, str], Awaitable[DagRun]]
    api: Literal["v1", "v2"] = "v2"

    def client(self, auth: Auth | None = None, *, below: str = "") -> AirflowClient:
        """A client of it, by default one that is let in."""
        auth = auth or PasswordAuth(self.username, self.password)
        return AirflowClient(self.http, self.url + below, auth, self.clock, api=self.api)


Check = Callable[[Site], Awaitable[None]]
NOT_AIRFLOW_BELOW = "/a/path/of/nobody"


def new_run() -> tuple[str, dict[str, object]]:
    """An id as the gateway makes them, and the conf that goes with it."""
    trigger_id = str(uuid4())
    return f"gateway__contract__{trigger_id}", {"gateway": {"trigger_id": trigger_id, "schema": 1}, "rows": 10}


async def it_is_healthy(site: Site) -> None:
    health = await site.client().health()
    assert (health.metadatabase, health.scheduler, health.dag_processor) == ("healthy",) * 3


async def a_dag_is_shown(site: Site) -> None:
    dag = await site.client().dag("quick_dag")
    assert (dag.dag_id, dag.is_paused) == ("quick_dag", False)
    assert dag.file is not None
    assert dag.file.rpartition("/")[2] == "quick_dag.py"


async def a_paused_dag_says_so(site: Site) -> None:
    assert (await site.client().dag("paused_dag")).is_paused


async def a_missing_dag_is_named(site: Site) -> None:
    run_id, conf = new_run()
    for call in (site.client().dag("no_such_dag"), site.client().trigger("no_such_dag", run_id, conf, None)):
        with pytest.raises(Refused, match="no_such_dag") as raised:
            await call
        assert raised.value.code == "dag_missing"
    assert await site.client().run("no_such_dag", run_id) is None


async def a_broken_dag_is_named_with_its_error(site: Site) -> None:
    run_id, conf = new_run()
    for call in (site.client().dag("broken_dag"), site.client().trigger("broken_dag", run_id, conf, None)):
        with pytest.raises(Refused, match=r"broken_dag\.py.*Error") as raised:
            await call
        assert raised.value.code == "dag_broken"
    assert await site.client().run("broken_dag", run_id) is None


async def import_errors_are_listed(site: Site) -> None:
    broken = await site.client().import_errors()
    assert [file for file in broken if file.file.endswith("broken_dag.py") and "Error" in file.stack_trace]


async def the_probe_names_what_would_not_run(site: Site) -> None:
    dags = ("quick_dag", "paused_dag", "broken_dag")
    found = await look("a", site.client(), dags, site.clock.now(), timedelta(hours=1))
    assert "broken_dag.py" in found.pop("a dag broken_dag")
    well = ("metadatabase", "scheduler", "dag_processor", "login", "queue", "dag quick_dag")
    assert found == {f"a {part}": "ok" for part in well} | {"a dag paused_dag": "paused: unpause it in Airflow"}


async def a_trigger_becomes_a_run_that_is_ours_and_succeeds(site: Site) -> None:
    client = site.client()
    run_id, conf = new_run()
    run = await client.trigger("quick_dag", run_id, conf, "a note")
    assert (run.dag_id, run.dag_run_id, run.conf) == ("quick_dag", run_id, conf)
    assert run.state == "queued"
    assert run.queued_at is not None
    ended = await site.until_ended(client, "quick_dag", run_id)
    assert ended.state == "success"
    assert run_is_ours(ended, run_id.rpartition("__")[2])
    assert not run_is_ours(ended, "another")
    assert ended.started_at is not None
    assert ended.ended_at is not None
    assert run.queued_at <= ended.started_at <= ended.ended_at


async def a_run_that_fails_is_seen_failed(site: Site) -> None:
    client = site.client()
    run_id, conf = new_run()
    await client.trigger("always_fails", run_id, conf, None)
    assert (await site.until_ended(client, "always_fails", run_id)).state == "failed"


async def runs_that_ended_are_listed_the_newest_first(site: Site) -> None:
    """Whoever started them: here nobody's conf is ours."""
    client, since = site.client(), site.clock.now()
    ends = []
    for run_id in (f"by-hand-{uuid4()}", f"by-hand-{uuid4()}"):
        await client.trigger("quick_dag", run_id, {"model": "churn"}, None)
        ends.append(await site.until_ended(client, "quick_dag", run_id))
    listed = await client.ended_runs("quick_dag", since - timedelta(minutes=1), 1000)
    ids = [run.dag_run_id for run in listed]
    assert ids.index(ends[1].dag_run_id) < ids.index(ends[0].dag_run_id)
    assert next(run for run in listed if run.dag_run_id == ends[0].dag_run_id) == ends[0]
    assert ends[0].ended_at is not None
    after = await client.ended_runs("quick_dag", ends[0].ended_at + timedelta(microseconds=1), 1000)
    assert ends[0].dag_run_id not in [run.dag_run_id for run in after]
    with pytest.raises(Refused) as raised:
        await client.ended_runs("no_such_dag", since, 1000)
    assert raised.value.code == "dag_missing"


async def the_same_id_again_is_a_conflict_and_one_run(site: Site) -> None:
    client = site.client()
    run_id, conf = new_run()
    await client.trigger("quick_dag", run_id, conf, None)
    with pytest.raises(Ambiguous) as raised:
        await client.trigger("quick_dag", run_id, {"gateway": {"trigger_id": "another"}}, None)
    assert raised.value.code == "conflict"
    run = await client.run("quick_dag", run_id)
    assert run is not None
    assert run.conf == conf, "the run is still the first one's"


async def of_triggers_at_once_with_one_id_at_most_one_is_told_yes(site: Site) -> None:
    client = site.client()
    run_id, conf = new_run()
    posts = [client.trigger("quick_dag", run_id, conf, None) for _ in range(3)]
    results = await asyncio.gather(*posts, return_exceptions=True)
    told_yes = [result for result in results if isinstance(result, DagRun)]
    assert len(told_yes) <= 1
    assert all(isinstance(result, DagRun | Ambiguous) for result in results)
    assert await client.run("quick_dag", run_id) is not None


async def an_unknown_run_is_none(site: Site) -> None:
    assert await site.client().run("quick_dag", "gateway__contract__nobody") is None


async def a_run_of_a_paused_dag_waits_and_can_be_failed(site: Site) -> None:
    client = site.client()
    run_id, conf = new_run()
    assert (await client.trigger("paused_dag", run_id, conf, None)).state == "queued"
    waiting = await client.run("paused_dag", run_id)
    assert waiting is not None
    assert waiting.state == "queued"
    assert waiting in await client.queued_runs(100)
    failed = await client.fail_run("paused_dag", run_id)
    assert failed.state == "failed"
    assert failed.ended_at is not None


async def an_unknown_run_cannot_be_failed(site: Site) -> None:
    with pytest.raises(Refused) as raised:
        await site.client().fail_run("quick_dag", "gateway__contract__nobody")
    assert raised.value.code == "run_missing"


async def an_id_that_airflow_reserves_is_rejected_for_good(site: Site) -> None:
    with pytest.raises(Rejected):
        await site.client().trigger("quick_dag", "scheduled__2026-01-01T00:00:00+00:00", {}, None)


async def an_id_that_airflow_forbids_is_rejected_for_good(site: Site) -> None:
    for run_id in ("a b", "é"):
        with pytest.raises(Rejected):
            await site.client().trigger("quick_dag", run_id, {}, None)


async def who_may_start_runs_may_be_asked_without_starting_one(site: Site) -> None:
    assert await site.client().may_trigger("quick_dag") is True


async def a_wrong_password_is_named(site: Site) -> None:
    with pytest.raises(Refused, match=r"airflow\.auth") as raised:
        await site.client(PasswordAuth(site.username, "wrong")).dag("quick_dag")
    assert raised.value.code == "token_rejected"


async def a_token_of_somebody_else_is_named(site: Site) -> None:
    with pytest.raises(Refused, match=r"airflow\.auth") as raised:
        await site.client(TokenAuth("abc")).dag("quick_dag")
    assert raised.value.code == "token_rejected"


async def another_address_is_not_taken_for_airflow(site: Site) -> None:
    below = site.client(TokenAuth("abc"), below=NOT_AIRFLOW_BELOW)
    run_id, conf = new_run()
    for call in (
        below.dag("quick_dag"),
        below.run("quick_dag", run_id),
        below.trigger("quick_dag", run_id, conf, None),
        below.health(),
        site.client(below=NOT_AIRFLOW_BELOW).dag("quick_dag"),
    ):
        with pytest.raises(Refused) as raised:
            await call
        assert raised.value.code == "not_airflow"


CHECKS: list[Check] = [
    it_is_healthy,
    a_dag_is_shown,
    a_paused_dag_says_so,
    a_missing_dag_is_named,
    a_broken_dag_is_named_with_its_error,
    import_errors_are_listed,
    the_probe_names_what_would_not_run,
    a_trigger_becomes_a_run_that_is_ours_and_succeeds,
    a_run_that_fails_is_seen_failed,
    runs_that_ended_are_listed_the_newest_first,
    the_same_id_again_is_a_conflict_and_one_run,
    of_triggers_at_once_with_one_id_at_most_one_is_told_yes,
    an_unknown_run_is_none,
    a_run_of_a_paused_dag_waits_and_can_be_failed,
    an_unknown_run_cannot_be_failed,
    an_id_that_airflow_reserves_is_rejected_for_good,
    an_id_that_airflow_forbids_is_rejected_for_good,
    who_may_start_runs_may_be_asked_without_starting_one,
    a_wrong_password_is_named,
    a_token_of_somebody_else_is_named,
    another_address_is_not_taken_for_airflow,
]
#: Airflow 2.11.2 answers a strange id with a web page and 500: ours never are strange.
CHECKS_V1 = [check for check in CHECKS if check is not an_id_that_airflow_forbids_is_rejected_for_good]
