"""The HTTP side of the fake as an Airflow 2: its addresses and, for each, what Airflow 2.11.2 was measured to answer.

Its DAGs, runs and scheduler are those of tests.fakes.airflow_state. What differs from Airflow 3 is the border: basic
authentication, one 403 for whatever is not allowed, RFC 7807 errors, no `queued_at`, whole paths of files.
"""

import base64
from typing import Any

from tests.fakes.airflow_api import AirflowApi
from tests.fakes.airflow_nouns import FakeDag, FakeRun, Refusal
from tests.fakes.faults import Call, Reply

_FIELDS = {"dag_run_id", "logical_date", "execution_date", "conf", "note", "data_interval_start", "data_interval_end"}
_TYPES = {"dag_run_id": str, "conf": dict, "note": str}
_WEB_PAGE = "<!DOCTYPE html><html><title>Airflow 404</title></html>"


class AirflowApiV1(AirflowApi):
    """See the module's docstring."""

    def answer(self, call: Call) -> Reply:
        try:
            if call.path.startswith("/api/v2") or call.op == "login":
                return self._unknown(call)
            reply: Reply = getattr(self, f"_{call.op}")(call)
        except Refusal as refusal:
            title, detail = refusal.detail
            problem = {"detail": detail, "status": refusal.status, "title": title, "type": "about:blank"}
            return Reply(refusal.status, problem, {"content-type": "application/problem+json"})
        return reply

    def _user(self, call: Call, *, write: bool = False) -> str:
        """Who asks; whatever is wrong with the login, and whatever the role lacks, is the same 403."""
        scheme, _, given = call.headers.get("authorization", "").partition(" ")
        user, _, password = base64.b64decode(given).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if self._state.users.get(user) != password or (write and user in self._state.viewers):
            raise Refusal(403, ("Forbidden", None))
        return user

    def _trigger(self, call: Call) -> Reply:
        dag_id, body = call.path.split("/")[4], call.body
        _check_types(body)  # By the framework, before anybody asks who it is.
        user = self._user(call, write=True)
        _check_fields(body, _FIELDS - self._state.unknown_fields)
        dag = self._state.dags.get(dag_id)
        if dag is None or (dag.is_stale and dag.file not in self._state.broken_files):
            raise Refusal(404, ("DAG not found", f"DAG with dag_id: '{dag_id}' not found"))
        if dag.file in self._state.broken_files:
            raise Refusal(400, ("DAG cannot be triggered", f"DAG with dag_id: '{dag_id}' has import errors"))
        now = self._state.clock.now()
        run_id = body.get("dag_run_id") or f"manual__{now.isoformat()}"
        if (dag_id, run_id) in self._state.runs:
            detail = f"DAGRun with DAG ID: '{dag_id}' and DAGRun ID: '{run_id}' already exists"
            raise Refusal(409, ("Conflict", detail))
        run = FakeRun(dag_id, run_id, body.get("conf") or {}, body.get("note"), user, queued_at=now)
        self._state.runs[dag_id, run_id] = run
        self._state.posts.append(body)
        return Reply(200, self._shown(run))

    def _run(self, call: Call) -> Reply:
        self._user(call)
        _, _, _, _, dag_id, _, run_id = call.path.split("/")
        run = self._state.runs.get((dag_id, run_id))
        if run is None:
            detail = f"DAGRun with DAG ID: '{dag_id}' and DagRun ID: '{run_id}' not found"
            raise Refusal(404, ("DAGRun not found", detail))
        return Reply(200, self._shown(run))

    def _fail_run(self, call: Call) -> Reply:
        if call.query:
            raise Refusal(400, (None, f"Extra query parameter(s) {', '.join(call.query)} not in spec"))
        self._user(call, write=True)
        _, _, _, _, dag_id, _, run_id = call.path.split("/")
        run = self._state.runs.get((dag_id, run_id))
        if run is None:
            raise Refusal(404, (f"Dag Run id {run_id} not found in dag {dag_id}", None))
        if run.state != call.body["state"]:
            run.end(call.body["state"], self._state.clock.now())
        return Reply(200, self._shown(run))

    def _list_runs(self, call: Call) -> Reply:
        """No 404: a DAG that is not there has no runs."""
        known = call.path.split("/")[4] in {"~", *self._state.dags}
        return super()._list_runs(call) if known else Reply(200, {"dag_runs": [], "total_entries": 0})

    def _shown(self, run: FakeRun) -> dict[str, Any]:
        shown = run.json()
        return {
            **{
                name: shown[name]
                for name in ("conf", "dag_id", "dag_run_id", "end_date", "note", "start_date", "state")
            },
            **dict.fromkeys(("logical_date", "execution_date", "data_interval_end"), shown["queued_at"]),
            "external_trigger": True,
            "run_type": "manual",
            "last_scheduling_decision": None,
        }

    def _known_dag(self, call: Call) -> FakeDag:
        dag_id = call.path.split("/")[4]
        dag = self._state.dags.get(dag_id)
        if dag is None:
            raise Refusal(404, ("DAG not found", f"The DAG with dag_id: {dag_id} was not found"))
        return dag

    def _dag(self, call: Call) -> Reply:
        self._user(call)
        dag = self._known_dag(call)
        shown = dag.json(has_import_errors=dag.file in self._state.broken_files)
        gone = dag.is_stale and dag.file not in self._state.broken_files
        for name in ("is_stale", "relative_fileloc", "bundle_name"):
            del shown[name]
        return Reply(200, {**shown, "is_active": not gone})

    def _import_errors(self, call: Call) -> Reply:
        answer = super()._import_errors(call).body
        for error in answer["import_errors"]:
            error["filename"] = f"/opt/airflow/dags/{error['filename']}"
            del error["bundle_name"]
        return Reply(200, answer)

    def _health(self, call: Call) -> Reply:
        """The DAG processor is a part of the scheduler, and says nothing of its own."""
        answer = super()._health(call).body
        answer["dag_processor"] = {"status": None, "latest_dag_processor_heartbeat": None}
        return Reply(200, answer)

    def _version(self, call: Call) -> Reply:
        return Reply(200, {"version": "2.11.2", "git_version": ""})

    def _unknown(self, call: Call) -> Reply:
        if call.path.startswith("/api/v1/"):
            raise Refusal(404, ("Not Found", "The requested URL was not found on the server."))
        return Reply(404, _WEB_PAGE, {"content-type": "text/html; charset=utf-8"})


def _check_types(body: Any) -> None:
    if not isinstance(body, dict):
        raise Refusal(400, ("Bad Request", "Request body is not valid JSON"))
    for name, kind in _TYPES.items():
        if body.get(name) is not None and not isinstance(body[name], kind):
            raise Refusal(400, ("Bad Request", f"{body[name]!r} is not of type '{kind.__name__}' - '{name}'"))


def _check_fields(body: dict[str, Any], known: set[str]) -> None:
    nulls = {n: ["Field may not be null."] for n in ("dag_run_id", "logical_date") if n in body and body[n] is None}
    unknown = {name: ["Unknown field."] for name in body if name not in known}
    if nulls or unknown:
        raise Refusal(400, ("Bad Request", str(nulls | unknown)))
    if str(body.get("dag_run_id", "")).startswith("scheduled__"):
        detail = f"A manual DAG run cannot use ID '{body['dag_run_id']}' since it is reserved for scheduled runs"
        raise Refusal(400, ("Bad Request", detail))
