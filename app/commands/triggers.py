"""Ask for a DAG run, and ask why: `explain`, `trigger`, `history`."""

import getpass
import json
from typing import Annotated
from urllib.parse import quote

import typer
from rich.table import Table

from app.client import AsJson, ask, id_column, labels, show, time
from app.errors import UsageError

app = typer.Typer()


@app.command()
def explain(
    subject: Annotated[str, typer.Argument(help="Id of an alert or trigger, an alert_id, or a fingerprint.")],
    as_json: AsJson = False,
) -> None:
    """Why, and why not: every decision on an alert or a trigger, and what would start a DAG run."""
    found = ask(f"/api/v1/explain/{quote(subject, safe='')}")
    if as_json:
        print(json.dumps(found, indent=2))
        return
    about = found.get("alert") or found["trigger"]
    show(
        f"{found['subject']} {about['id']}  route {about['route'] or '-'}  group {labels(about['group'])}",
        style="bold",
    )
    show(found["summary"])
    table = Table("when", "times", "action", "reason", "why", box=None, padding=(0, 2, 0, 0))
    for d in found["decisions"]:
        table.add_row(time(d["first_at"]), str(d["count"]), d["action"], d["reason"], d["detail"])
    show(table)
    if found.get("now"):
        show(f"At this moment: {found['now']['action']}, {found['now']['reason']}: {found['now']['detail']}.")
    if found.get("would_fire"):
        show(f"What would start a DAG run: {found['would_fire']}")
    if found.get("next_step"):
        show(f"What to do: {found['next_step']}")


@app.command()
def trigger(
    route: Annotated[str, typer.Argument(help="Name of the route.")],
    reason: Annotated[str, typer.Option(help="Why; kept for the people who read it later.")],
    group: Annotated[list[str] | None, typer.Option(help="LABEL=VALUE for each label of the route's group_by.")] = None,
    conf: Annotated[str, typer.Option(help="JSON, laid over the route's conf.")] = "{}",
    force: Annotated[bool, typer.Option("--force", help="Override cooldown and limit, never a run in flight.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for one DAG run of a group now."""
    group_labels = dict(text.partition("=")[::2] for text in group or ())
    try:
        laid_over = json.loads(conf)
    except ValueError as error:
        raise UsageError(f"--conf is not JSON: {error}") from error
    body = {"route": route, "group": group_labels, "reason": reason, "force": force, "conf": laid_over}
    body["requested_by"] = getpass.getuser()
    made = ask("/api/v1/triggers", body=body)
    if as_json:
        print(json.dumps(made, indent=2))
        return
    print(f"Trigger {made['id']} is {made['state']}; its DAG run will be {made['dag_run_id']}.")
    print(f"Next:  trigger-gateway explain {made['id']}")


@app.command()
def history(
    what: Annotated[str, typer.Argument(help="alerts or triggers")] = "triggers",
    route: Annotated[str | None, typer.Option(help="Only this route.")] = None,
    status: Annotated[str | None, typer.Option(help="Only this status or state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest triggers, or alerts."""
    if what not in ("alerts", "triggers"):
        raise UsageError("history shows `alerts` or `triggers`")
    page = ask(f"/api/v1/{what}", route=route, status=status, limit=limit)
    if as_json:
        print(json.dumps(page, indent=2))
        return
    rows = page["items"]
    if what == "alerts":
        table = Table("last seen", "times", "alert", "group", "status", "newest decision", id_column(), box=None)
        for a in rows:
            newest = a["decisions"][-1]
            decision = f"{newest['action']}, {newest['reason']}"
            seen, count = time(a["last_seen_at"]), str(a["count"])
            table.add_row(seen, count, a["alert_id"], labels(a["group"]), a["status"], decision, a["id"])
    else:
        table = Table("created", "route", "group", "state", "where it stands", id_column(), box=None)
        for t in rows:
            table.add_row(time(t["created_at"]), t["route"], labels(t["group"]), t["state"], t["detail"], t["id"])
    show(table if rows else f"No {what} yet.")
    if page["next"]:
        show(f"There are more: --limit, or GET /api/v1/{what}?cursor={page['next']}")
