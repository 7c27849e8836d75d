"""Ask for a DAG run, and ask why: `explain`, `trigger`, `history`."""

import getpass
import json
import os
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.client import AsJson, Table, ask, id_column, labels, page_url, show, time
from app.cli.commands.lanes import show_lanes
from app.kit.errors import UsageError

app = typer.Typer()


def _user() -> str:
    """The user's name, or the number of a user without one, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@app.command()
def explain(
    subject: Annotated[
        str | None, typer.Argument(help="Id of an alert or trigger, an alert_id, or a fingerprint.")
    ] = None,
    route: Annotated[str | None, typer.Option(help="Instead of an id: why this route started nothing lately.")] = None,
    group: Annotated[
        list[str] | None, typer.Option(help="With --route: LABEL=VALUE, only groups that have it.")
    ] = None,
    since: Annotated[str, typer.Option(help="With --route: how long ago, such as 7d, or RFC 3339.")] = "7d",
    as_json: AsJson = False,
) -> None:
    """Why, and why not: every decision on an alert or a trigger, and what would fire; or why a route started nothing."""
    if (subject is None) == (route is None):
        raise UsageError("explain takes an alert or a trigger, or --route NAME")
    if route is not None:
        answer = ask(f"/api/v1/routes/{quote(route, safe='')}/explain", since=since, label=group)
        return print(json.dumps(answer, indent=2)) if as_json else _explain_route(answer)
    found = ask(f"/api/v1/explain/{quote(str(subject), safe='')}")
    return print(json.dumps(found, indent=2)) if as_json else _explain_subject(found)


def _explain_subject(found: dict[str, Any]) -> None:
    subject = found.get("alert") or found["trigger"]
    show(
        f"{found['subject']} {subject['id']}  route {subject['route'] or '-'}  group {labels(subject['group'])}",
        style="bold",
    )
    show(found["summary"])
    table = Table("when", "times", "action", "reason", "why", box=None, padding=(0, 2, 0, 0))
    for d in found["decisions"]:
        table.add_row(time(d["first_at"]), str(d["count"]), d["action"], d["reason"], d["detail"])
    show(table)
    if found.get("now"):
        show(f"At this moment: {found['now']['action']}, {found['now']['reason']}: {found['now']['detail']}.")
    _what_next(found)
    show(f"Its page: {page_url(found['subject'] + 's', subject['id'])}")


def _explain_route(answer: dict[str, Any]) -> None:
    show(f"route {answer['route']}  group {labels(answer['group'])}  since {time(answer['since'])}", style="bold")
    show(answer["summary"])
    table = Table("group", "state", "until", "at this moment", box=None, padding=(0, 2, 0, 0))
    for row in answer["groups"]:
        until = row["held_until"] or row["cooldown_until"]
        now = f"{row['now']['action']}, {row['now']['reason']}" if row["now"] else "nothing fires"
        table.add_row(labels(row["group"]), row["state"], time(until) if until else "-", now)
    if answer["groups"]:
        show(table)
    _what_next(answer)
    wanted = ", ".join(f"{name}={value}" for name, value in answer["group"].items())
    show(f"Its page: {page_url(route=answer['route'], label=wanted)}")


def _what_next(answer: dict[str, Any]) -> None:
    if answer.get("would_fire"):
        show(f"What would start a DAG run: {answer['would_fire']}")
    if answer.get("next_step"):
        show(f"What to do: {answer['next_step']}")


@app.command()
def trigger(
    route: Annotated[str, typer.Argument(help="Name of the route.")],
    reason: Annotated[str, typer.Option(help="Why; kept for the people who read it later.")],
    group: Annotated[list[str] | None, typer.Option(help="LABEL=VALUE for each label of the route's group_by.")] = None,
    conf: Annotated[str, typer.Option(help="JSON. Its keys replace those of the route's conf.")] = "{}",
    force: Annotated[bool, typer.Option("--force", help="Override cooldown and limit, never a run in flight.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for one DAG run of a group now."""
    group_labels = dict(text.partition("=")[::2] for text in group or ())
    try:
        own_conf = json.loads(conf)
    except ValueError as error:
        raise UsageError(f"--conf is not JSON: {error}") from error
    body = {"route": route, "group": group_labels, "reason": reason, "force": force, "conf": own_conf}
    body["requested_by"] = _user()
    made = ask("/api/v1/triggers", body=body)
    if as_json:
        print(json.dumps(made, indent=2))
        return
    show(f"Trigger {made['id']} is {made['state']}; its DAG run will be {made['dag_run_id']}.")
    show(f"Next:  trigger-gateway explain {made['id']}, or look at {page_url('triggers', made['id'])}")


@app.command()
def history(
    what: Annotated[str, typer.Argument(help="triggers, alerts, schedules or lanes")] = "triggers",
    route: Annotated[str | None, typer.Option(help="Only this route.")] = None,
    status: Annotated[str | None, typer.Option(help="Only this status or state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    group: Annotated[list[str] | None, typer.Option(help="With lanes: LABEL=VALUE, only groups that have it.")] = None,
    days: Annotated[int, typer.Option(min=1, max=365, help="With lanes: how many days.")] = 30,
    as_json: AsJson = False,
) -> None:
    """The newest triggers or alerts; the schedules, each with the decision on its newest occurrence; or a lane for each
    group."""
    if what not in ("alerts", "triggers", "schedules", "lanes"):
        raise UsageError("history shows `alerts`, `triggers`, `schedules` or `lanes`")
    if what == "lanes":
        if as_json:
            raise UsageError("history lanes is a picture: for scripts take `history triggers --json`")
        show_lanes(route, group or (), days)
        return
    if what == "schedules":
        _schedules(ask("/api/v1/schedules"), as_json)
        return
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


def _schedules(page: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(page, indent=2))
        return
    table = Table("schedule", "route", "group", "next (UTC)", "last (UTC)", "newest decision", box=None)
    for s in page["items"]:
        last = s["last"] or {"at": None, "detail": "nothing yet"}
        at = time(last["at"]) if last["at"] else "-"
        table.add_row(s["name"], s["route"], labels(s["group"]), time(s["next_at"]), at, last["detail"])
    show(table if page["items"] else "The policy has no schedules.")
