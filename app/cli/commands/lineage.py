"""The command `lineage`: where a model comes from, and what an alert led to."""

import json
import re
from typing import Annotated, Any
from uuid import UUID

import typer

from app.cli.client import AsJson, Table, ask, labels, page_url, show, time
from app.kit.errors import GatewayError, UsageError

app = typer.Typer()


@app.command()
def lineage(
    subject: Annotated[
        str | None,
        typer.Argument(help="Id of a trigger, an alert or an MLflow run, a dag_run_id, or MODEL/VERSION."),
    ] = None,
    orphans: Annotated[bool, typer.Option("--orphans", help="List what lacks its lineage instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole chain from the alert to the model version, from any end of it."""
    if (subject is None) != orphans:
        raise UsageError("lineage takes one trigger, alert, run, DAG run or MODEL/VERSION, or --orphans")
    if subject is None:
        page = ask("/api/v1/lineage/orphans", limit=1000)
        return print(json.dumps(page, indent=2)) if as_json else _show_orphans(page)
    found = _find(subject)
    return print(json.dumps(found, indent=2)) if as_json else _show(found)


def _find(subject: str) -> dict[str, Any]:
    """Try each kind of thing that the subject can be, until one is known. The error of the last try when none is."""
    guesses = _guesses(subject)
    for parameters in guesses[:-1]:
        found: dict[str, Any] = ask("/api/v1/lineage", also=(404, 422), **parameters)
        if found.get("chains"):
            return found
    last: dict[str, Any] = ask("/api/v1/lineage", **guesses[-1])
    if not last["chains"]:
        raise GatewayError(f"the gateway does not know {subject}, and {last['mlflow']['detail']}")
    return last


def _guesses(subject: str) -> list[dict[str, Any]]:
    if re.fullmatch("[0-9a-f]{32}", subject):  # Only MLflow writes a UUID without dashes.
        return [{"run": subject}]
    try:
        ident = str(UUID(subject))
    except ValueError:
        model, slash, version = subject.rpartition("/")
        return [{"model": model, "version": version}] if slash else [{"dag_run": subject}, {"run": subject}]
    return [{"trigger": ident}, {"alert": ident}]


def _show(found: dict[str, Any]) -> None:
    for chain in found["chains"]:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for link, text in _lines(chain):
            table.add_row(link, text)
        show(table)
        if chain["trigger"]:
            show(f"Its page: {page_url('triggers', chain['trigger']['id'])}")
    for gap in found["missing"]:
        show(f"Missing: {gap['link']}{' of ' if gap['of'] else ''}{gap['of']}: {gap['detail']}.")
    if not found["missing"]:
        show("No link is missing.")


def _lines(chain: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("alert", f"{a['alert_id']}  {labels(a['labels'])}  {a['status']} since {time(a['starts_at'])}  {a['id']}")
        for a in chain["alerts"]
    ]
    lines += [
        ("decision", f"{d['action']}, {d['reason']}: {d['detail']}  {time(d['first_at'])}") for d in chain["decisions"]
    ]
    if trigger := chain["trigger"]:
        lines.append(("trigger", f"{trigger['id']}  route {trigger['route']}  {trigger['state']}: {trigger['detail']}"))
    if run := chain["dag_run"]:
        lines.append(("DAG run", f"{run['dag_run_id']}  {run['state'] or ''}"))
    for run in chain["runs"]:
        commit = f"git {run['git_commit'][:12]}" if run["git_commit"] else "no git commit"
        lines.append(("MLflow run", f"{run['run_id']}  {run['status']}  {run['metrics']} metrics, {commit}"))
    for version in [*(version for run in chain["runs"] for version in run["versions"]), *chain["versions"]]:
        lines.append(("version", _version(version)))
        lines += [
            ("promotion", f"{p['kind']} to {p['to']}: {p['state']}, {p['detail']}  {time(p['created_at'])}")
            for p in version["promotions"]
        ]
    return lines


def _version(version: dict[str, Any]) -> str:
    aliases = f"  {', '.join(version['aliases'])}" if version["aliases"] else ""
    return f"{version['model']}/{version['version']}  {version['status']}{aliases}"


def _show_orphans(page: dict[str, Any]) -> None:
    if not page["items"]:
        show("Nothing lacks its lineage.")
        return
    table = Table("kind", "missing", "what", "since", box=None, padding=(0, 2, 0, 0))
    for orphan in page["items"]:
        table.add_row(orphan["kind"], orphan["missing"], orphan["detail"], time(orphan["first_at"]))
    show(table)
    if page["next"]:
        show(f"There are more: GET /api/v1/lineage/orphans?cursor={page['next']}")
