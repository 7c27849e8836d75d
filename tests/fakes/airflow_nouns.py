"""The nouns of the fake Airflow: its DAGs, its DAG runs, its tokens, and what it says to a bad body."""

import base64
import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

_FIELDS = {"dag_run_id", "logical_date", "conf", "note", "run_after", "data_interval_start", "data_interval_end"}
_RUN_ID = re.compile(r"[A-Za-z0-9_.~:+-]+")


class Refusal(Exception):
    """An error answer with its `detail`."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(status)
        self.status = status
        self.detail = detail


class HasNow(Protocol):
    def now(self) -> datetime: ...


@dataclass
class FakeDag:
    dag_id: str
    file: str
    is_paused: bool
    runnable_since: datetime
    is_stale: bool = False

    def json(self, *, has_import_errors: bool) -> dict[str, Any]:
        """The members of Airflow's answer that mean something, and a few that do not."""
        return {
            "dag_id": self.dag_id,
            "dag_display_name": self.dag_id,
            "is_paused": self.is_paused,
            "is_stale": self.is_stale,
            "has_import_errors": has_import_errors,
            "bundle_name": "dags-folder",
            "relative_fileloc": self.file,
            "fileloc": f"/opt/airflow/dags/{self.file}",
            "description": None,
            "timetable_summary": None,
            "timetable_description": "Never, external triggers only",
            "tags": [],
            "max_active_tasks": 16,
            "max_active_runs": 16,
            "owners": ["airflow"],
        }


@dataclass
class FakeRun:
    dag_id: str
    dag_run_id: str
    conf: dict[str, Any]
    note: str | None
    user: str
    queued_at: datetime
    state: str = "queued"
    started_at: datetime | None = None
    ended_at: datetime | None = None

    def end(self, state: str, at: datetime) -> None:
        self.state, self.ended_at = state, at

    def json(self) -> dict[str, Any]:
        """Airflow's answer for a run that was posted through its API."""
        duration = (self.ended_at - self.started_at).total_seconds() if self.ended_at and self.started_at else None
        return {
            "dag_run_id": self.dag_run_id,
            "dag_id": self.dag_id,
            "logical_date": None,
            "queued_at": _iso(self.queued_at),
            "start_date": _iso(self.started_at),
            "end_date": _iso(self.ended_at),
            "duration": duration,
            "data_interval_start": None,
            "data_interval_end": None,
            "run_after": _iso(self.queued_at),
            "last_scheduling_decision": None,
            "run_type": "manual",
            "state": self.state,
            "triggered_by": "rest_api",
            "triggering_user_name": self.user,
            "conf": self.conf,
            "note": self.note,
            "dag_versions": [],
            "bundle_version": None,
            "dag_display_name": self.dag_id,
            "partition_key": None,
            "partition_date": None,
        }


def _iso(time: datetime | None) -> str | None:
    return time.isoformat().replace("+00:00", "Z") if time else None


class Jwt:
    """Tokens as Airflow makes them: HS512, with iat and exp, one secret for all."""

    def __init__(self, clock: HasNow) -> None:
        self._clock = clock
        self._generation = 0
        self._count = 0
        self._expired_up_to = 0

    def mint(self, username: str, life: timedelta) -> str:
        self._count += 1
        issued = self._clock.now().timestamp()
        payload = {
            "sub": username,
            "jti": str(self._count),
            "aud": "apache-airflow",
            "iat": issued,
            "nbf": issued,
            "exp": issued + life.total_seconds(),
        }
        body = f"{_encode({'alg': 'HS512', 'typ': 'JWT'})}.{_encode(payload)}"
        return f"{body}.{self._sign(body)}"

    def expire_all(self) -> None:
        self._expired_up_to = self._count

    def rotate(self) -> None:
        self._generation += 1

    def check(self, authorization: str) -> str:
        """The user of the token. Raises the Refusal that Airflow answers with otherwise."""
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer":
            raise Refusal(401, "Not authenticated")
        body, _, signature = token.rpartition(".")
        if not body or not hmac.compare_digest(signature, self._sign(body)):
            raise Refusal(403, "Invalid JWT token")
        payload = body.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        if claims["exp"] <= self._clock.now().timestamp() or int(claims["jti"]) <= self._expired_up_to:
            raise Refusal(401, "Token Expired")
        return str(claims["sub"])

    def _sign(self, body: str) -> str:
        digest = hmac.new(f"secret-{self._generation}".encode(), body.encode(), hashlib.sha512).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _is_time(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def run_problem(body: Any) -> str | list[dict[str, Any]] | None:
    """What Airflow says against the body of a trigger: a list for 422, a string for 400, None if nothing."""
    given = body if isinstance(body, dict) else {}
    problems = [
        {"type": "extra_forbidden", "loc": ["body", key], "msg": "Extra inputs are not permitted", "input": given[key]}
        for key in sorted(given.keys() - _FIELDS)
    ]
    if "logical_date" not in given:
        problems.append({"type": "missing", "loc": ["body", "logical_date"], "msg": "Field required", "input": body})
    elif given["logical_date"] is not None and not _is_time(given["logical_date"]):
        message = "Input should be a valid datetime or date, input is too short"
        problems.append({"type": "datetime_from_date_parsing", "loc": ["body", "logical_date"], "msg": message})
    for key, kind, article in (("conf", dict, "dictionary"), ("dag_run_id", str, "string"), ("note", str, "string")):
        value = given.get(key)
        if value is not None and not isinstance(value, kind):
            message = f"Input should be a valid {article}"
            problems.append({"type": f"{kind.__name__}_type", "loc": ["body", key], "msg": message, "input": value})
    if problems:
        return problems
    run_id = given.get("dag_run_id")
    if run_id is None:
        return None
    if not _RUN_ID.fullmatch(run_id):
        return f"The run_id provided '{run_id}' does not match regex pattern '^[A-Za-z0-9_.~:+-]+$'"
    if run_id.startswith("scheduled__"):
        return f"A manual DAG run cannot use ID '{run_id}' since it is reserved for scheduled runs"
    return None
