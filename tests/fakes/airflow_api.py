"""The HTTP side of the fake Airflow: its addresses and, for each, what Airflow 3.3.2 was measured to answer."""

import hashlib
import re
from datetime import datetime
from typing import Any

from tests.fakes.airflow_nouns import FakeDag, FakeRun, Refusal, run_problem
from tests.fakes.airflow_state import AirflowState
from tests.fakes.faults import Call, Reply

_API = "/api/v[12]"
_ROUTES = [
    ("POST", r"/auth/token", "login"),
    ("GET", rf"{_API}/dags", "list_dags"),
    ("GET", rf"{_API}/dags/[^/]+", "dag"),
    ("PATCH", rf"{_API}/dags/[^/]+", "patch_dag"),
    ("POST", rf"{_API}/dags/[^/]+/dagRuns", "trigger"),
    ("GET", rf"{_API}/dags/[^/]+/dagRuns", "list_runs"),
    ("GET", rf"{_API}/dags/[^/]+/dagRuns/[^/]+", "run"),
    ("PATCH", rf"{_API}/dags/[^/]+/dagRuns/[^/]+", "fail_run"),
    ("GET", rf"{_API}/importErrors", "import_errors"),
    ("GET", r"/api/v2/monitor/health", "health"),
    ("GET", r"/api/v1/health", "health"),
    ("GET", rf"{_API}/version", "version"),
]
CONFLICT = {"reason": "Unique constraint violation", "statement": "hidden", "orig_error": "hidden"}
SERIOUS = "Serious error when handling your request. Check logs for more details - you will find it in api server when"


def operation(method: str, path: str) -> str:
    """The name of what a request asks for; `path` is decoded, as Airflow matches it."""
    for verb, pattern, op in _ROUTES:
        if verb == method and re.fullmatch(pattern, path):
            return op
    return "unknown"


class AirflowApi:
    """Answers one request out of the state; no request is recorded and nothing goes wrong here."""

    def __init__(self, state: AirflowState) -> None:
        self._state = state

    def answer(self, call: Call) -> Reply:
        """What Airflow answers, errors included."""
        try:
            if call.path.startswith("/api/v1"):
                return self._unknown(call)
            reply: Reply = getattr(self, f"_{call.op}")(call)
        except Refusal as refusal:
            return Reply(refusal.status, {"detail": refusal.detail})
        return reply

    def _user(self, call: Call, *, write: bool = False) -> str:
        """Who asks, as Airflow checks it: before it looks at the body and at what is asked for."""
        if isinstance(call.body, str):
            raise Refusal(422, [{"type": "json_invalid", "loc": ["body", 1], "msg": "JSON decode error", "input": {}}])
        if self._state.all_admins:
            return "Anonymous"
        user = self._state.jwt.check(call.headers.get("authorization", ""))
        if write and user in self._state.viewers:
            raise Refusal(403, "Forbidden")
        return user

    def _login(self, call: Call) -> Reply:
        given = call.body if isinstance(call.body, dict) else {}
        if "username" not in given or "password" not in given:
            raise Refusal(422, f"1 validation error for LoginBody [type=missing, input_value={given}, input_type=dict]")
        if not self._state.all_admins and self._state.users.get(given["username"]) != given["password"]:
            raise Refusal(401, "Invalid credentials")
        return Reply(201, {"access_token": self._state.mint(given["username"])})

    def _trigger(self, call: Call) -> Reply:
        user = self._user(call, write=True)
        dag_id, body = call.path.split("/")[4], call.body
        problem = run_problem(body)
        if isinstance(problem, list):
            raise Refusal(422, problem)
        dag = self._state.dags.get(dag_id)
        if dag is None or dag.is_stale:
            raise Refusal(404, f"Dag with dag_id: '{dag_id}' not found")
        if problem is not None:
            raise Refusal(400, problem)
        now = self._state.clock.now()
        run_id = body.get("dag_run_id") or f"manual__{now.isoformat()}"
        if (dag_id, run_id) in self._state.runs:
            trace = hashlib.sha256(run_id.encode()).hexdigest()[:8]
            raise Refusal(409, {**CONFLICT, "message": f"{SERIOUS} you look for ID {trace}"})
        run = FakeRun(dag_id, run_id, body.get("conf") or {}, body.get("note"), user, queued_at=now)
        self._state.runs[dag_id, run_id] = run
        self._state.posts.append(body)
        return Reply(200, run.json())

    def _known_run(self, call: Call) -> FakeRun:
        _, _, _, _, dag_id, _, run_id = call.path.split("/")
        run = self._state.runs.get((dag_id, run_id))
        if run is None:
            raise Refusal(404, f"The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found")
        return run

    def _run(self, call: Call) -> Reply:
        self._user(call)
        return Reply(200, self._known_run(call).json())

    def _fail_run(self, call: Call) -> Reply:
        self._user(call, write=True)
        state = call.body.get("state")
        if state not in {"queued", "success", "failed"}:
            raise Refusal(422, [{"type": "enum", "loc": ["body", "state"], "msg": "Input should be 'failed'"}])
        run = self._known_run(call)
        if run.state != state:
            run.end(state, self._state.clock.now())
        return Reply(200, run.json())

    def _list_runs(self, call: Call) -> Reply:
        self._user(call)
        dag_id = call.path.split("/")[4]
        runs = [run for run in self._state.runs.values() if dag_id in {"~", run.dag_id}]
        runs = [run for run in runs if run.dag_run_id.startswith(call.query.get("run_id_prefix_pattern", ""))]
        runs = [run for run in runs if run.state == call.query.get("state", run.state)]
        if dag_id != "~":
            self._known_dag(call)
        if (since := call.query.get("end_date_gte")) is not None:
            earliest = datetime.fromisoformat(since)
            runs = [run for run in runs if run.ended_at is not None and run.ended_at >= earliest]
        if call.query.get("order_by") == "-end_date":
            runs.sort(key=lambda run: run.ended_at or run.queued_at, reverse=True)
        limit, offset = int(call.query.get("limit", "50")), int(call.query.get("offset", "0"))
        return Reply(
            200,
            {
                "dag_runs": [self._shown(run) for run in runs[offset : offset + limit]],
                "total_entries": len(runs),
                "total_entries_limit": None,
                "next_cursor": None,
                "previous_cursor": None,
            },
        )

    def _shown(self, run: FakeRun) -> dict[str, Any]:
        return run.json()

    def _known_dag(self, call: Call) -> FakeDag:
        dag_id = call.path.split("/")[4]
        dag = self._state.dags.get(dag_id)
        if dag is None:
            raise Refusal(404, f"The Dag with ID: `{dag_id}` was not found")
        return dag

    def _dag(self, call: Call) -> Reply:
        self._user(call)
        dag = self._known_dag(call)
        return Reply(200, dag.json(has_import_errors=dag.file in self._state.broken_files))

    def _list_dags(self, call: Call) -> Reply:
        self._user(call)
        limit = int(call.query.get("limit", "50"))
        shown = [dag.json(has_import_errors=dag.file in self._state.broken_files) for dag in self._state.dags.values()]
        return Reply(200, {"dags": shown[:limit], "total_entries": len(shown)})

    def _patch_dag(self, call: Call) -> Reply:
        self._user(call, write=True)
        dag = self._known_dag(call)
        (self._state.pause if call.body.get("is_paused") else self._state.unpause)(dag.dag_id)
        return Reply(200, dag.json(has_import_errors=dag.file in self._state.broken_files))

    def _import_errors(self, call: Call) -> Reply:
        self._user(call)
        at = self._state.clock.now().isoformat()
        errors = [
            {
                "import_error_id": n,
                "timestamp": at,
                "filename": file,
                "bundle_name": "dags-folder",
                "stack_trace": trace,
            }
            for n, (file, trace) in enumerate(self._state.broken_files.items(), 1)
        ]
        limit = int(call.query.get("limit", "50"))
        return Reply(200, {"import_errors": errors[:limit], "total_entries": len(errors)})

    def _health(self, call: Call) -> Reply:
        at = self._state.clock.now().isoformat()
        health: dict[str, dict[str, str | None]] = {}
        for name, status in self._state.components.items():
            health[name] = {"status": status}
            if name != "metadatabase":
                health[name][f"latest_{name}_heartbeat"] = at if status else None
        return Reply(200, health)

    def _version(self, call: Call) -> Reply:
        return Reply(200, {"version": "3.3.2", "git_version": ".release:aa19d2dbb9ed187ec01957a92848d9b005e9ba9d"})

    def _unknown(self, call: Call) -> Reply:
        if call.method != "GET":
            return Reply(405, {"detail": "Method Not Allowed"})
        if call.path.startswith("/api/"):
            return Reply(404, {"error": "API route not found"})
        return Reply(200, "<!doctype html><title>Airflow</title>", {"content-type": "text/html; charset=utf-8"})
