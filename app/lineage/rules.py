"""Which link of the chain is missing? Pure: what was seen goes in, orphans come out.

A run or a trigger is judged only when it has been quiet for the policy's `grace`, because a spool delivers late. A version
and an alias are judged at once: they are made after what they name. A nested run is part of its parent and is not judged.
A run that has not ended is judged only by what it must have at its start. A run that is older than the retention needs no
DAG run: its trigger may have been deleted since.

The gaps of a chain in an answer are those of this moment, without that patience.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from app.lineage.model import SeenAlias, SeenRun, SeenVersion

Row = dict[str, Any]


class Kind(StrEnum):
    """What lacks its lineage."""

    VERSION_WITHOUT_RUN = "version_without_run"
    RUN_WITHOUT_DAG_RUN = "run_without_dag_run"
    RUN_WITHOUT_GIT_COMMIT = "run_without_git_commit"
    RUN_WITHOUT_METRICS = "run_without_metrics"
    TRIGGER_WITHOUT_RUN = "trigger_without_run"
    ALIAS_TO_DELETED_VERSION = "alias_to_deleted_version"


class Link(StrEnum):
    """Which link is missing."""

    RUN = "run"
    DAG_RUN = "dag_run"
    GIT_COMMIT = "git_commit"
    METRICS = "metrics"
    VERSION = "version"


_LACKING: Final = {Link.GIT_COMMIT: Kind.RUN_WITHOUT_GIT_COMMIT, Link.METRICS: Kind.RUN_WITHOUT_METRICS}


@dataclass(frozen=True, slots=True)
class Orphan:
    """One thing that lacks one link. `detail` is one sentence. `ids` name the thing in MLflow, Airflow and the gateway."""

    kind: Kind
    missing: Link
    detail: str
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The identity of a fault: its kind and the ids of the thing."""
        return ":".join((self.kind, *self.ids.values()))


@dataclass(frozen=True, slots=True)
class TriggerFacts:
    """The facts of a trigger that lineage judges."""

    id: UUID
    route: str
    state: str
    dag_run_id: str
    accepted_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Patience:
    """`settled`: what has been quiet since then is judged. `known`: no trigger that is younger has been deleted."""

    settled: datetime
    known: datetime

    @staticmethod
    def at(now: datetime, grace: timedelta, retention: timedelta) -> "Patience":
        """A retention of zero means that triggers are never deleted."""
        return Patience(now - grace, now - retention if retention else datetime.min.replace(tzinfo=now.tzinfo))


def judge_run(run: SeenRun, trigger: TriggerFacts | None, patience: Patience) -> list[Orphan]:
    """The links that a run lacks. `trigger` is the trigger in its tag; None when the gateway has no such trigger."""
    started = run.started_at
    if run.deleted or run.parent or started is None or started > patience.settled:
        return []
    ids = {"run_id": run.run_id}
    found = []
    for link, fault in _lacking(run.status, run.git_commit, run.metrics):
        if link is not Link.METRICS or (run.ended_at or started) <= patience.settled:
            found.append(Orphan(_LACKING[link], link, f"run {run.run_id} {fault}", ids))
    if (detail := _unstarted(run, trigger)) and started >= patience.known:
        found.append(Orphan(Kind.RUN_WITHOUT_DAG_RUN, Link.DAG_RUN, detail, ids))
    return found


def _lacking(status: str, git_commit: str | None, metrics: int) -> Iterator[tuple[Link, str]]:
    """The links that a run itself lacks, with or without a trigger."""
    if git_commit is None:
        yield Link.GIT_COMMIT, "does not say from which git commit its code came"
    if status == "FINISHED" and not metrics:
        yield Link.METRICS, "finished and has no metric"


def _unstarted(run: SeenRun, trigger: TriggerFacts | None) -> str:
    """Why the DAG run of this run is not known; empty when it is known."""
    if run.trigger_id is None:
        return "" if run.dag_run_id else f"run {run.run_id} names neither a trigger nor a DAG run"
    if trigger is None:
        return f"run {run.run_id} names the trigger {run.trigger_id}, which the gateway does not have"
    if trigger.accepted_at is None:
        return f"run {run.run_id} names the trigger {run.trigger_id}, which never became a DAG run"
    return ""


def judge_version(version: SeenVersion, run: SeenRun | None) -> list[Orphan]:
    """The links that a version lacks. `run` is the run that it names; None when MLflow has no such run."""
    if version.run_id and run is not None and not run.deleted:
        return []
    gone = "was deleted" if run is not None else "does not exist"
    detail = f"version {version.version} of {version.model} {_sourceless(version.run_id, gone)}"
    ids = {"model": version.model, "version": version.version}
    return [Orphan(Kind.VERSION_WITHOUT_RUN, Link.RUN, detail, ids)]


def _sourceless(run_id: str | None, gone: str) -> str:
    return f"comes from the run {run_id}, which {gone}" if run_id else "names no run: its origin is not known"


def judge_alias(alias: SeenAlias, *, exists: bool) -> list[Orphan]:
    """An orphan when the version that an alias names does not exist."""
    if exists:
        return []
    detail = f"the alias {alias.alias} of {alias.model} names version {alias.version}, which does not exist"
    ids = {"model": alias.model, "alias": alias.alias, "version": alias.version}
    return [Orphan(Kind.ALIAS_TO_DELETED_VERSION, Link.VERSION, detail, ids)]


def judge_trigger(trigger: TriggerFacts, runs: int, patience: Patience, *, reports: bool = True) -> list[Orphan]:
    """An orphan when a DAG run succeeded and has no run in MLflow, unless its route has `lineage: false`. `runs`: how many
    runs in MLflow name the trigger."""
    if (
        not reports
        or not _unreported(trigger.state, runs)
        or trigger.ended_at is None
        or trigger.ended_at > patience.settled
    ):
        return []
    detail = f"the DAG run {trigger.dag_run_id} succeeded, and no run in MLflow names its trigger {trigger.id}"
    ids = {"trigger_id": str(trigger.id), "dag_run_id": trigger.dag_run_id}
    return [Orphan(Kind.TRIGGER_WITHOUT_RUN, Link.RUN, detail, ids)]


def _unreported(state: str, runs: int) -> bool:
    return state == "succeeded" and not runs


# -- the gaps of one chain ----------------------------------------------------------------------------------------


def gaps(chain: Row, reports: Callable[[str], bool]) -> Iterator[Row]:
    """The gaps of a chain: which link, of what, and a sentence. `reports`: whether a route's DAG runs report to MLflow."""
    trigger = chain["trigger"]
    if trigger is not None and chain["dag_run"] is None:
        yield _gap(Link.DAG_RUN, f"trigger {trigger['id']}", f"it is {trigger['state']}, and has no DAG run")
    if trigger is not None and _unreported(trigger["state"], len(chain["runs"])) and reports(trigger["route"]):
        yield _gap(Link.RUN, f"trigger {trigger['id']}", "its DAG run succeeded, and no run in MLflow names it")
    for run in chain["runs"]:
        of = f"run {run['run_id']}"
        if trigger is None:
            named = run["trigger_id"]
            detail = f"the gateway does not have its trigger {named}" if named else "it names no trigger"
            yield _gap("trigger", of, detail)
        if run["deleted"]:
            yield _gap(Link.RUN, of, "it was deleted in MLflow")
        for link, fault in _lacking(run["status"], run["git_commit"], run["metrics"]):
            yield _gap(link, of, f"it {fault}")
    for version in chain["versions"]:
        fault = _sourceless(version["run_id"], "MLflow does not have")
        yield _gap(Link.RUN, f"version {version['version']} of {version['model']}", f"it {fault}")


def _gap(link: str, of: str, detail: str) -> Row:
    return {"link": link, "of": of, "detail": detail}
