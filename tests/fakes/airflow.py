"""A fake Airflow, faithful to what Airflow 3.3.2 (with `api="v1"` Airflow 2.11.2) was measured to answer, and to no more.

    fake = FakeAirflow(clock)                      # clock: anything with now() -> aware datetime; no real time is used
    fake.add_dag("retrain_model")
    http = open_http(transport=fake.transport())   # in memory; or serve `fake` itself, it is an ASGI app
    client = AirflowClient(http, fake.url, PasswordAuth(fake.username, fake.password), clock)

What it knows
    add_dag / pause / unpause / break_dag / remove_dag / repair_dag / add_broken_file; `users`, `viewers` (may only
    read), `all_admins` (no token needed), `components` (what health says), expire_tokens / rotate_secret / mint.

The scheduler moves only when told: `start_run(id)`, `finish(id, state)`, `advance()` (starts what is queued and may
    run). With `auto_finish=timedelta(...)` runs start when they are posted (or unpaused) and end that much later by the
    clock, in the state that `outcome(run)` gives ("success"); this is worked out at every request, so nobody needs to
    call advance. Runs of a paused DAG, and all runs while `components["scheduler"]` is not "healthy", stay queued.

What goes wrong is scripted as in every fake, see tests.fakes.server. `on` is an operation: "login", "trigger", "run",
    "list_runs", "fail_run", "dag", "list_dags", "patch_dag", "import_errors", "health", "version", "unknown"; or a
    predicate on the Call; or None for every request.

Who stands before it: `proxy(call, reply)` gives the reply that the sender gets; see tests.fakes.proxies.

What tests assert on
    `posts`: the bodies of accepted triggers, in order: "exactly one POST" is len(fake.posts) == 1.
    `runs`: every DAG run by (dag_id, dag_run_id); `open_runs()`; `most_open`: the most runs ever open at once.
    `seen`: every request with the status the server gave it; `calls("trigger")`: those of one operation.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Literal

from tests.fakes.airflow_api import AirflowApi, operation
from tests.fakes.airflow_api_v1 import AirflowApiV1
from tests.fakes.airflow_nouns import FakeDag, FakeRun, HasNow
from tests.fakes.airflow_state import AirflowState
from tests.fakes.faults import Call, Reply
from tests.fakes.server import FakeServer

__all__ = ["FakeAirflow", "FakeDag", "FakeRun"]


class FakeAirflow(AirflowState, FakeServer):
    """See the module's docstring."""

    url = "http://airflow.test:8080"

    def __init__(
        self,
        clock: HasNow,
        *,
        auto_finish: timedelta | None = None,
        outcome: Callable[[FakeRun], str] = lambda _run: "success",
        all_admins: bool = False,
        token_life: timedelta = timedelta(hours=24),
        api: Literal["v1", "v2"] = "v2",
    ) -> None:
        AirflowState.__init__(
            self, clock, auto_finish=auto_finish, outcome=outcome, all_admins=all_admins, token_life=token_life
        )
        FakeServer.__init__(self, clock)
        self.most_open = 0
        self.proxy: Callable[[Call, Reply], Reply] = lambda _call, reply: reply
        self._api = AirflowApi(self) if api == "v2" else AirflowApiV1(self)

    def operation(self, method: str, path: str) -> str:
        return operation(method, path)

    def answer(self, call: Call) -> Reply:
        if self.auto_finish is not None:
            self.advance()
        reply = self._api.answer(call)
        self.most_open = max(self.most_open, len(self.open_runs()))
        return self.proxy(call, reply)
