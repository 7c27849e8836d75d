"""Which links one shown chain lacks. Pure: what `chain` answers goes in, a sentence for each gap comes out."""

from collections.abc import Iterator
from typing import Any

Row = dict[str, Any]


def of_chain(chain: Row) -> Iterator[Row]:
    """The gaps of a chain as it stands now, without the patience that the survey has with what is still on its way."""
    trigger = chain["trigger"]
    if trigger is not None and chain["dag_run"] is None:
        yield _gap("dag_run", f"trigger {trigger['id']}", f"it is {trigger['state']}: no DAG run was started")
    if trigger is not None and trigger["state"] == "succeeded" and not chain["runs"]:
        yield _gap("run", f"trigger {trigger['id']}", "its DAG run succeeded, and no run in MLflow names it")
    for run in chain["runs"]:
        yield from _of_run(run, trigger)
    for version in chain["versions"]:
        named = f"MLflow has no run {version['run_id']}" if version["run_id"] else "it names no run"
        yield _gap("run", f"version {version['version']} of {version['model']}", named)


def _of_run(run: Row, trigger: Row | None) -> Iterator[Row]:
    of = f"run {run['run_id']}"
    if trigger is None:
        named = run["trigger_id"]
        detail = f"its trigger {named} is not known here" if named else "it names no trigger"
        yield _gap("trigger", of, detail)
    if run["deleted"]:
        yield _gap("run", of, "it was deleted in MLflow")
    if run["git_commit"] is None:
        yield _gap("git_commit", of, "it does not say from which git commit its code came")
    if run["status"] == "FINISHED" and not run["metrics"]:
        yield _gap("metrics", of, "it finished and has no metric")


def _gap(link: str, of: str, detail: str) -> Row:
    return {"link": link, "of": of, "detail": detail}
