"""Which link of the chain is missing? Pure: what was seen goes in, orphans come out.

A run or a trigger is judged only when it has been quiet for the policy's `grace`: what the spool still keeps arrives
later. A version and an alias are judged at once: they come after what they name. A run that is nested in another is that
one's part and not judged; a running one is judged by what it had at its start. Of runs older than the retention it is not
asked who started them: the trigger may have been deleted since.

A chain that is shown tells its gaps as they stand now, without that patience.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from app.lineage.model import SeenAlias, SeenRun, SeenVersion

ENDED = frozenset({"FINISHED", "FAILED", "KILLED"})  # states of a run that nothing changes any more

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
    """One thing that lacks one link. `detail` is one sentence; `about` are the ids by which it is found elsewhere."""

    kind: Kind
    missing: Link
    detail: str
    about: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same fault of the same thing."""
        return ":".join((self.kind, *self.about.values()))


@dataclass(frozen=True, slots=True)
class TriggerFacts:
    """A trigger as lineage judges it."""

    id: UUID
    route: str
    state: str
    dag_run_id: str
    accepted_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Patience:
    """`settled`: what was quiet since then is judged. `known`: triggers that are younger have not been deleted."""

    settled: datetime
    known: datetime

    @staticmethod
    def at(now: datetime, grace: timedelta, retention: timedelta) -> "Patience":
        """A retention of zero keeps triggers for ever."""
        return Patience(now - grace, now - retention if retention else datetime.min.replace(tzinfo=now.tzinfo))


def judge_run(run: SeenRun, trigger: TriggerFacts | None, patience: Patience) -> list[Orphan]:
    """What a run lacks. `trigger` is the one that its tag names, None when there is no such trigger here."""
    started = run.started_at
    if run.deleted or run.parent or started is None or started > patience.settled:
        return []
    about = {"run_id": run.run_id}
    found = []
    for link, said in _lacking(run.status, run.git_commit, run.metrics):
        if link is not Link.METRICS or (run.ended_at or started) <= patience.settled:
            found.append(Orphan(_LACKING[link], link, f"run {run.run_id} {said}", about))
    if (detail := _unstarted(run, trigger)) and started >= patience.known:
        found.append(Orphan(Kind.RUN_WITHOUT_DAG_RUN, Link.DAG_RUN, detail, about))
    return found


def _lacking(status: str, git_commit: str | None, metrics: int) -> Iterator[tuple[Link, str]]:
    """What a run itself lacks, whoever started it."""
    if git_commit is None:
        yield Link.GIT_COMMIT, "does not say from which git commit its code came"
    if status == "FINISHED" and not metrics:
        yield Link.METRICS, "finished and has no metric"


def _unstarted(run: SeenRun, trigger: TriggerFacts | None) -> str:
    """Why nobody can say which DAG run this run belongs to; empty when somebody can."""
    if run.trigger_id is None:
        return "" if run.dag_run_id else f"run {run.run_id} names neither a trigger nor a DAG run"
    if trigger is None:
        return f"run {run.run_id} names the trigger {run.trigger_id}, which is not known here"
    if trigger.accepted_at is None:
        return f"run {run.run_id} names the trigger {run.trigger_id}, which never became a DAG run"
    return ""


def judge_version(version: SeenVersion, run: SeenRun | None) -> list[Orphan]:
    """What a version lacks. `run` is the one that it names, None when MLflow has no such run."""
    if version.run_id and run is not None and not run.deleted:
        return []
    gone = "was deleted" if run is not None else "does not exist"
    detail = f"version {version.version} of {version.model} {_sourceless(version.run_id, gone)}"
    about = {"model": version.model, "version": version.version}
    return [Orphan(Kind.VERSION_WITHOUT_RUN, Link.RUN, detail, about)]


def _sourceless(run_id: str | None, gone: str) -> str:
    return f"comes from the run {run_id}, which {gone}" if run_id else "names no run: nobody knows how it was made"


def judge_alias(alias: SeenAlias, *, exists: bool) -> list[Orphan]:
    """Whether what an alias names is there."""
    if exists:
        return []
    detail = f"the alias {alias.alias} of {alias.model} names version {alias.version}, which does not exist"
    about = {"model": alias.model, "alias": alias.alias, "version": alias.version}
    return [Orphan(Kind.ALIAS_TO_DELETED_VERSION, Link.VERSION, detail, about)]


def judge_trigger(trigger: TriggerFacts, runs: int, patience: Patience, *, reports: bool = True) -> list[Orphan]:
    """A DAG run that succeeded should have reported, if its route `reports`. `runs`: how many runs in MLflow name the
    trigger."""
    if (
        not reports
        or not _unreported(trigger.state, runs)
        or trigger.ended_at is None
        or trigger.ended_at > patience.settled
    ):
        return []
    detail = f"the DAG run {trigger.dag_run_id} succeeded, and no run in MLflow names its trigger {trigger.id}"
    about = {"trigger_id": str(trigger.id), "dag_run_id": trigger.dag_run_id}
    return [Orphan(Kind.TRIGGER_WITHOUT_RUN, Link.RUN, detail, about)]


def _unreported(state: str, runs: int) -> bool:
    return state == "succeeded" and not runs


# -- one chain, as `chain` shows it ----------------------------------------------------------------------------------------


def gaps(chain: Row, reports: Callable[[str], bool]) -> Iterator[Row]:
    """What a chain that is shown lacks: which link, of what, and a sentence. `reports`: as for `judge_trigger`, by route."""
    trigger = chain["trigger"]
    if trigger is not None and chain["dag_run"] is None:
        yield _gap(Link.DAG_RUN, f"trigger {trigger['id']}", f"it is {trigger['state']}: no DAG run was started")
    if trigger is not None and _unreported(trigger["state"], len(chain["runs"])) and reports(trigger["route"]):
        yield _gap(Link.RUN, f"trigger {trigger['id']}", "its DAG run succeeded, and no run in MLflow names it")
    for run in chain["runs"]:
        of = f"run {run['run_id']}"
        if trigger is None:
            named = run["trigger_id"]
            detail = f"its trigger {named} is not known here" if named else "it names no trigger"
            yield _gap("trigger", of, detail)
        if run["deleted"]:
            yield _gap(Link.RUN, of, "it was deleted in MLflow")
        for link, said in _lacking(run["status"], run["git_commit"], run["metrics"]):
            yield _gap(link, of, f"it {said}")
    for version in chain["versions"]:
        said = _sourceless(version["run_id"], "MLflow does not have")
        yield _gap(Link.RUN, f"version {version['version']} of {version['model']}", f"it {said}")


def _gap(link: str, of: str, detail: str) -> Row:
    return {"link": link, "of": of, "detail": detail}
