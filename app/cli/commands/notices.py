"""Receivers and the notices that they get: `receivers test`, `receivers redrive`, `notices`."""

import json
from typing import Annotated
from urllib.parse import quote

import typer

from app.cli.client import AsJson, Table, ask, id_column, show, time
from app.kit.errors import GatewayError

app = typer.Typer()
receivers = typer.Typer(no_args_is_help=True, help="The receivers of notices.")
app.add_typer(receivers, name="receivers")


@receivers.callback()
def _receivers() -> None:
    """The receivers of notices."""


@receivers.command("test")
def try_receiver(
    name: Annotated[str, typer.Argument(help="Name of a receiver in the policy.")], as_json: AsJson = False
) -> None:
    """Send a notice that is marked as a test, and show what the receiver answered. It is resolved after two minutes."""
    tested = ask(f"/api/v1/receivers/{quote(name, safe='')}/test", body={}, within=30.0)
    if as_json:
        print(json.dumps(tested, indent=2))
    elif tested["state"] == "delivered":
        show(f"{name} got the test: {tested['detail']}")
    if tested["state"] != "delivered":
        raise GatewayError(f"{name} did not get the test ({tested['state']}): {tested['detail']}")


@receivers.command()
def redrive(notice: Annotated[str, typer.Argument(help="Id of a notice, as `notices` lists it.")]) -> None:
    """Send again the dead notices of an incident. Repair the receiver first, and try it with `receivers test`."""
    redriven = ask(f"/api/v1/notices/{quote(notice, safe='')}/redrive", body={})
    show(f"{redriven['title']}: on its way again. `trigger-gateway notices` shows whether it arrives.")


@app.command()
def notices(
    state: Annotated[str | None, typer.Option(help="open or resolved; left out: both.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest incidents, and whether their notices arrived."""
    page = ask("/api/v1/notices", state=state, limit=limit)
    if as_json:
        print(json.dumps(page, indent=2))
        return
    table = Table("opened", "resolved", "what", "receivers", id_column(), box=None)
    for n in page["items"]:
        sent = ", ".join(f"{r['receiver']} {(r['resolved'] or r['opened'] or {}).get('state')}" for r in n["receivers"])
        table.add_row(
            time(n["opened_at"]), time(n["resolved_at"]) if n["resolved_at"] else "-", n["title"], sent or "-", n["id"]
        )
    show(table if page["items"] else "There are no incidents.")
    if page["next"]:
        show(f"There are more: --limit, or GET /api/v1/notices?cursor={page['next']}")
