"""One Airflow from outside: does it answer, would it start a run, may we start one, and are the policy's DAGs there?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from app.cli.doctor.finding import Finding, fail, good, warn
from app.explain.sentences import UNBLOCK
from app.kit.airflow.client import AirflowClient
from app.kit.clock import Clock
from app.kit.errors import TargetError
from app.kit.http import Http
from app.policy.access import access_of
from app.policy.language.templates import placeholders, render_text
from app.policy.schema import Airflow, Route

#: A `Date` header has whole seconds, and Airflow measures a token's life by its own clock: a smaller skew does no harm.
SKEW: Final = timedelta(seconds=30)
MAX_DAGS: Final = 50  # most DAGs that are checked for one `dag.id` with placeholders
_LOGIN: Final = frozenset({"token_rejected", "token_file", "ca_file", "not_airflow", "bad_url"})

Groups = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Patient:
    """One Airflow of the policy, and the routes that start runs in it. `groups` are the groups seen so far, by route."""

    airflow: Airflow
    client: AirflowClient
    routes: Sequence[Route]
    groups: Mapping[str, Groups]
    has_login: bool  # False while a ${VARIABLE} of the policy is not set

    @property
    def name(self) -> str:
        return f"airflow {self.airflow.name}"


async def examine_airflow(patient: Patient, http: Http, clock: Clock) -> list[Finding]:
    """Check one Airflow, and stop at a fault that hides the rest. Starts and changes nothing."""
    health = await _health(patient)
    findings = [*health, await _skew(patient, http, clock)] if _answers(health) else health
    if not _answers(health):
        return findings
    if not patient.has_login:
        step = "Set the variables that are named above, and run `doctor` again."
        return [*findings, warn(patient.name, "login and DAGs were not checked: the policy lacks values", step)]
    login = await _login(patient)
    findings.append(login)
    if login.level == "fail":
        return findings
    for dag_id, routes in _dags(patient).items():
        findings += await _dag(patient, dag_id, routes)
    return findings + _unseen(patient)


def _answers(health: Sequence[Finding]) -> bool:
    return not any(finding.check.endswith("reachable") and finding.level == "fail" for finding in health)


async def _health(patient: Patient) -> list[Finding]:
    check, url = f"{patient.name} reachable", patient.airflow.url
    try:
        health = await patient.client.health()
    except TargetError as error:
        return [fail(check, error.detail, f"Start Airflow, or correct `url` of {patient.name} in the policy ({url}).")]
    found = [good(check, f"{url} answers")]
    if not health.can_run:
        cause = f"scheduler {health.scheduler or 'away'}, metadata database {health.metadatabase}: no run would start"
        found.append(
            fail(f"{patient.name} scheduler", cause, "Start `airflow scheduler`; its log says why it stopped.")
        )
    else:
        found.append(good(f"{patient.name} scheduler", "healthy"))
    if health.dag_processor != "healthy":
        cause = f"DAG processor {health.dag_processor or 'away'}: new and changed DAG files are not read"
        found.append(warn(f"{patient.name} DAG processor", cause, "Start `airflow dag-processor`."))
    return found


async def _skew(patient: Patient, http: Http, clock: Clock) -> Finding:
    check = f"{patient.name} clock"
    try:
        answer = await http.using(access_of(patient.airflow, login=False)).request("GET", patient.airflow.url)
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (TargetError, KeyError, ValueError):
        return warn(
            check, "its answers have no date, so its clock is not known", "Do nothing, unless times look wrong."
        )
    return judge_skew(check, theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC), clock.now(), SKEW)


def judge_skew(check: str, theirs: datetime, ours: datetime, allowed: timedelta) -> Finding:
    """Compare two clocks that were read at the same moment."""
    apart = theirs - ours
    seconds = f"{abs(apart.total_seconds()):.0f} s"
    if abs(apart) <= allowed:
        return good(check, "agrees with the gateway's")
    way = "ahead of" if apart > timedelta(0) else "behind"
    step = "Run NTP on both machines. Until then the times of alerts, decisions and DAG runs do not fit together."
    return warn(check, f"{seconds} {way} the gateway's", step)


async def _login(patient: Patient) -> Finding:
    check = f"{patient.name} login"
    try:
        await patient.client.import_errors()
    except TargetError as error:
        if error.code == "forbidden":
            cause = "the login works, but may not read import errors: a broken DAG would look missing"
            return warn(check, cause, "Give the gateway's user in Airflow a role that may read import errors.")
        step = UNBLOCK.get(error.code) if error.code in _LOGIN else None
        return fail(check, error.detail, _advice(step, patient, "", "") or "Look at Airflow's log.")
    return good(check, "the token is accepted" if patient.airflow.auth else "no token is needed")


def _dags(patient: Patient) -> dict[str, list[str]]:
    """Every DAG whose id is known, with the routes that start it."""
    found: dict[str, list[str]] = {}
    for route in patient.routes:
        if placeholders(route.dag.id):
            ids = sorted({render_text(route.dag.id, group) for group in patient.groups.get(route.name, ())})
        else:
            ids = [route.dag.id]
        for dag_id in ids[:MAX_DAGS]:
            found.setdefault(dag_id, []).append(route.name)
    return found


def _unseen(patient: Patient) -> list[Finding]:
    """Routes whose DAG id is not known yet."""
    return [
        warn(
            f"{patient.name} DAG {route.dag.id}",
            f"route {route.name}: no group was seen yet, so its DAG id is not known",
            "Run `doctor` again after its first alert.",
        )
        for route in patient.routes
        if placeholders(route.dag.id) and not patient.groups.get(route.name)
    ]


async def _dag(patient: Patient, dag_id: str, routes: Sequence[str]) -> list[Finding]:
    check, names = f"{patient.name} DAG {dag_id}", ", ".join(routes)
    try:
        dag = await patient.client.dag(dag_id)
        allowed = await patient.client.may_trigger(dag_id)
    except TargetError as error:
        step = _advice(UNBLOCK.get(error.code), patient, dag_id, names)
        return [fail(check, error.detail, step or "Look at Airflow's log, and run `doctor` again.")]
    if allowed is False:
        step = _advice(UNBLOCK["forbidden"], patient, dag_id, names) or ""
        return [fail(check, "the gateway's user may not start runs of it", step)]
    if dag.is_paused:
        cause = "it is paused: triggers wait until it is unpaused"
        return [fail(check, cause, f"Unpause the DAG {dag_id} in Airflow (`airflow dags unpause {dag_id}`).")]
    if allowed is None:
        cause = "it exists, imports and is not paused; only a start would show whether the gateway's user may start it"
        return [warn(check, cause, "Give the gateway's user in Airflow a role that may trigger DAG runs.")]
    return [good(check, "it exists, imports, is not paused, and may be started")]


def _advice(template: str | None, patient: Patient, dag_id: str, route: str) -> str | None:
    """What `explain` advises for the same fault, without its promise about the trigger: here there is none."""
    if template is None:
        return None
    advice = template.format(airflow=patient.airflow.name, dag_id=dag_id, route=route)
    return advice.replace("; the run then starts by itself", "")
