"""The commands that talk to a running gateway over HTTP: GATEWAY_URL and GATEWAY_TOKEN."""

import asyncio
import getpass
import json
import os
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer
from rich.console import Console
from rich.table import Column, Table

from app.errors import GatewayError, TargetError, UsageError
from app.http import open_http

client_app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="The API's answer, for scripts.")]


def ask(path: str, *, body: dict[str, Any] | None = None, **parameters: Any) -> Any:
    """GET a path of the running gateway, or POST `body` to it.

    Raises UsageError for what the caller must change, GatewayError for a no of the policy and for no good answer.
    """
    url = os.environ.get("GATEWAY_URL", "http://127.0.0.1:8090").rstrip("/")
    token = os.environ.get("GATEWAY_TOKEN")
    wanted = urlencode({k: v for k, v in parameters.items() if v is not None}, doseq=True)

    async def send() -> Any:
        http = open_http()
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            method = "GET" if body is None else "POST"
            return await http.request(method, f"{url}{path}?{wanted}", headers=headers, json=body)
        finally:
            await http.aclose()

    try:
        answer = asyncio.run(send())
    except TargetError as error:
        raise GatewayError(
            f"the gateway at {url} does not answer: {error.detail}. Is it running? (GATEWAY_URL)"
        ) from error
    if answer.status >= 400:
        detail = answer.body.get("detail") if isinstance(answer.body, dict) else None
        kind = UsageError if answer.status < 500 and answer.status != 409 else GatewayError
        raise kind(str(detail or f"the gateway at {url} answered {answer.status}"))
    return answer.body


@client_app.command()
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
    _show(
        f"{found['subject']} {about['id']}  route {about['route'] or '-'}  group {_labels(about['group'])}",
        style="bold",
    )
    _show(found["summary"])
    table = Table("when", "times", "action", "reason", "why", box=None, padding=(0, 2, 0, 0))
    for d in found["decisions"]:
        table.add_row(_time(d["first_at"]), str(d["count"]), d["action"], d["reason"], d["detail"])
    _show(table)
    if found.get("now"):
        _show(f"At this moment: {found['now']['action']}, {found['now']['reason']}: {found['now']['detail']}.")
    if found.get("would_fire"):
        _show(f"What would start a DAG run: {found['would_fire']}")
    if found.get("next_step"):
        _show(f"What to do: {found['next_step']}")


@client_app.command()
def trigger(
    route: Annotated[str, typer.Argument(help="Name of the route.")],
    reason: Annotated[str, typer.Option(help="Why; kept for the people who read it later.")],
    group: Annotated[list[str] | None, typer.Option(help="LABEL=VALUE for each label of the route's group_by.")] = None,
    conf: Annotated[str, typer.Option(help="JSON, laid over the route's conf.")] = "{}",
    force: Annotated[bool, typer.Option("--force", help="Override cooldown and limit, never a run in flight.")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask for one DAG run of a group now."""
    labels = dict(text.partition("=")[::2] for text in group or ())
    try:
        laid_over = json.loads(conf)
    except ValueError as error:
        raise UsageError(f"--conf is not JSON: {error}") from error
    body = {"route": route, "group": labels, "reason": reason, "force": force, "conf": laid_over}
    body["requested_by"] = getpass.getuser()
    made = ask("/api/v1/triggers", body=body)
    if as_json:
        print(json.dumps(made, indent=2))
        return
    print(f"Trigger {made['id']} is {made['state']}; its DAG run will be {made['dag_run_id']}.")
    print(f"Next:  trigger-gateway explain {made['id']}")


@client_app.command()
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
        table = Table("last seen", "times", "alert", "group", "status", "newest decision", _id(), box=None)
        for a in rows:
            newest = a["decisions"][-1]
            decision = f"{newest['action']}, {newest['reason']}"
            seen, count = _time(a["last_seen_at"]), str(a["count"])
            table.add_row(seen, count, a["alert_id"], _labels(a["group"]), a["status"], decision, a["id"])
    else:
        table = Table("created", "route", "group", "state", "where it stands", _id(), box=None)
        for t in rows:
            table.add_row(_time(t["created_at"]), t["route"], _labels(t["group"]), t["state"], t["detail"], t["id"])
    _show(table if rows else f"No {what} yet.")
    if page["next"]:
        _show(f"There are more: --limit, or GET /api/v1/{what}?cursor={page['next']}")


def _show(what: str | Table, style: str | None = None) -> None:
    """Print; what senders wrote is text, whatever brackets it has."""
    Console(highlight=False, markup=False).print(what, style=style)


def _id() -> Column:
    # An id that is cut is of no use: the other columns fold instead.
    return Column("id", no_wrap=True, min_width=36)


def _labels(labels: dict[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in labels.items()) or "-"


def _time(text: str) -> str:
    return text[:19].replace("T", " ")
