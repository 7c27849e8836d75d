"""What Airflow's answers mean, whichever API they come from (app.kit.airflow.apis). Pure: no call is made here.

Only the status and the shape of an answer have a meaning. Its words are shown to people and decide nothing: another
version, another language or a proxy words it differently. What a status leaves open, the client asks for.

Facts of Airflow 3.3.2 (API v2): `detail` of an error is a string, an object (409) or a list (422). An unknown route is
404 {"error": "API route not found"}. A wrong base path brings the web page, with 200.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal, Protocol, get_args

from app.kit.errors import Ambiguous, Refused, Rejected, TargetError, Unreachable
from app.kit.http import Answer

RunState = Literal["queued", "running", "success", "failed"]
MAX_SENTENCE: Final = 500  # characters
TOO_LARGE: Final = frozenset({413, 414, 431})  # also from a proxy: this one request is never taken
RUN_STATES: Final[tuple[RunState, ...]] = get_args(RunState)


@dataclass(frozen=True, slots=True)
class DagRun:
    """One DAG run as Airflow shows it. Times are UTC."""

    dag_id: str
    dag_run_id: str
    state: RunState
    conf: Mapping[str, Any] = field(default_factory=dict)
    queued_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class DagInfo:
    """A DAG that Airflow has and can run. A run of a paused DAG stays queued until somebody unpauses the DAG."""

    dag_id: str
    is_paused: bool
    schedule: str | None = None  # the timetable, in Airflow's words
    file: str | None = None  # relative to its bundle


@dataclass(frozen=True, slots=True)
class Health:
    """The status of each component, "healthy" or "unhealthy"; None when that component does not run."""

    metadatabase: str | None
    scheduler: str | None
    dag_processor: str | None
    triggerer: str | None

    @property
    def can_run(self) -> bool:
        """Whether a run that is posted now would also be started."""
        return self.metadatabase == "healthy" and self.scheduler == "healthy"


@dataclass(frozen=True, slots=True)
class BrokenFile:
    """A DAG file that does not import."""

    file: str
    stack_trace: str = field(repr=False)

    @property
    def summary(self) -> str:
        """The file with the first and the last line of the trace."""
        lines = [line.strip() for line in self.stack_trace.splitlines() if line.strip()]
        ends = lines if len(lines) < 2 else [lines[0], lines[-1]]
        return one_line(f"{self.file}: {' ... '.join(ends)}")

    def concerns(self, dag_id: str) -> bool:
        """Whether the DAG's id is a word of the file's name or of the trace. This only chooses a name for a DAG that cannot
        run: `dag_broken` and `dag_missing` have the same effect."""
        word = re.compile(rf"(?<![\w.-]){re.escape(dag_id)}(?![\w-])")
        return bool(dag_id) and bool(word.search(self.file) or word.search(self.stack_trace))


def run_is_ours(run: DagRun, trigger_id: str) -> bool:
    """Whether the run carries our trigger's id. Only that proves that we started it."""
    gateway = run.conf.get("gateway")
    return isinstance(gateway, Mapping) and gateway.get("trigger_id") == trigger_id


def read_run(body: Any) -> DagRun | None:
    """A DAG run from its JSON, or None when the JSON is something else."""
    if not isinstance(body, dict):
        return None
    dag_id, run_id, state, conf = (body.get(key) for key in ("dag_id", "dag_run_id", "state", "conf"))
    if not isinstance(dag_id, str) or not isinstance(run_id, str) or state not in RUN_STATES:
        return None
    return DagRun(
        dag_id=dag_id,
        dag_run_id=run_id,
        state=state,
        conf=conf if isinstance(conf, dict) else {},
        queued_at=_time(body.get("queued_at")),
        started_at=_time(body.get("start_date")),
        ended_at=_time(body.get("end_date")),
    )


def read_runs(body: Any, read: Callable[[Any], DagRun | None]) -> list[DagRun | None] | None:
    """The rows of a list of DAG runs, None for each that cannot be read; None if the body is something else."""
    entries = body.get("dag_runs") if isinstance(body, dict) else None
    return [read(entry) for entry in entries] if isinstance(entries, list) else None


def read_health(body: Any) -> Health | None:
    """The health of each component, or None if the body is something else."""
    if not isinstance(body, dict) or not isinstance(body.get("metadatabase"), dict):
        return None

    def status(component: str) -> str | None:
        part = body.get(component)
        found = part.get("status") if isinstance(part, dict) else None
        return found if isinstance(found, str) else None

    return Health(status("metadatabase"), status("scheduler"), status("dag_processor"), status("triggerer"))


def read_broken_files(body: Any) -> list[BrokenFile] | None:
    """The files of GET /importErrors, or None if the body is something else."""
    entries = body.get("import_errors") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        return None
    return [
        BrokenFile(str(entry.get("filename") or "unknown file"), str(entry.get("stack_trace") or ""))
        for entry in entries
        if isinstance(entry, dict)
    ]


def lists_dags(answer: Answer) -> bool:
    """Whether this is Airflow's list of DAGs: proof that Airflow itself answers at this address, and takes our login."""
    return answer.status == 200 and isinstance(answer.body, dict) and isinstance(answer.body.get("dags"), list)


class Dialect(Protocol):
    """The part of an API (app.kit.airflow.apis) that errors name."""

    version: ClassVar[str]
    login_help: ClassVar[str]  # what to do when Airflow does not take our login


def failure(
    answer: Answer, what: str, dialect: Dialect, *, write: bool, now: datetime, quote: Callable[[str], str] = str
) -> TargetError:
    """The error for an answer that is not the expected one. `what` names the call, as in "the trigger"; `quote` leaves out
    Airflow's words where they repeat a secret."""
    detail = f"Airflow answered {answer.status} to {what}: {error_words(answer.body, quote) or 'no reason given'}"
    wait = answer.retry_after(now)
    if answer.status == 401 and isinstance(answer.body, dict):
        return Refused("token_rejected", f"{detail}: {dialect.login_help}")
    if answer.status == 429:
        return Unreachable("busy", detail, retry_after=wait)
    if answer.status >= 500 or answer.status == 408:
        # 500 is the application's own: it has given up. 502, 503 and 504 are a proxy's, and Airflow may still work on it.
        finished = answer.status == 500
        return (Ambiguous if write else Unreachable)("server_error", detail, retry_after=wait, finished=finished)
    if write and 200 <= answer.status < 300:
        # A server took the write. Even if a page stands in place of Airflow's answer, a run may have started behind it.
        code = "unreadable" if isinstance(answer.body, dict) else "not_airflow"
        return Ambiguous(code, f"{not_airflow(answer, what, dialect)}; whether it acted is not known")
    if write and answer.status == 409:
        # Also when a proxy puts its own page in place of Airflow's body: the run may be ours.
        return Ambiguous("conflict", detail, finished=True)
    if answer.status in TOO_LARGE:
        return Rejected("bad_request", detail)
    if not isinstance(answer.body, dict) or answer.status in {404, 405}:
        return not_airflow(answer, what, dialect)
    if answer.status == 403:
        return Refused("forbidden", f"{detail}: the gateway's user needs a role that may do this")
    if answer.status in {400, 422}:
        return Rejected("bad_request", detail)
    return not_airflow(answer, what, dialect)


def not_airflow(answer: Answer, what: str, dialect: Dialect) -> Refused:
    """The error for an answer that is not from this API of Airflow. The body may be anything, so it is not repeated."""
    kind = answer.headers.get("content-type", "no content type").split(";")[0][:60]
    how = "a redirect" if 300 <= answer.status < 400 else kind
    return Refused(
        "not_airflow",
        f"{what} was answered with {answer.status} ({how}), which is not Airflow's API {dialect.version}: check "
        "airflow.url and airflow.api in the policy file and what stands in between",
    )


def error_words(body: Any, quote: Callable[[str], str] = str) -> str:
    """The words of an error body, whatever its shape, in one line; "" if it has none. They are for people alone. The input
    that Airflow repeats is left out. `quote` sees the words before they are cut: half a secret is a secret too."""
    detail = body.get("detail", body.get("title", body.get("error"))) if isinstance(body, dict) else None
    return one_line(quote(_flat(detail)))


def one_line(text: str) -> str:
    """`text` on one line of printable characters, at most 500 of them."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_SENTENCE]).split())
    return line if len(line) <= MAX_SENTENCE else line[: MAX_SENTENCE - 1] + "…"


def _flat(detail: Any) -> str:
    match detail:
        case str():
            return detail
        case Mapping():
            texts = [str(detail[key]) for key in ("reason", "message", "msg") if isinstance(detail.get(key), str)]
            where = detail.get("loc")
            place = (
                ".".join(map(str, where)) + ": " if isinstance(where, Sequence) and not isinstance(where, str) else ""
            )
            return place + "; ".join(texts)
        case list():
            return "; ".join(filter(None, map(_flat, detail[:10])))
    return ""


def _time(value: Any) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
