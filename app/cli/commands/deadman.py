"""The dead man's switches: `deadman list`, `show`, `pause`, `resume`, `forget`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.client import AsJson, Table, ask, labels, page_url, show, time

app = typer.Typer()
switches = typer.Typer(no_args_is_help=True, help="The dead man's switches: what should have happened, and did not.")
app.add_typer(switches, name="deadman")

Name = Annotated[str, typer.Argument(help="Name of a switch.")]


def _path(name: str, *more: str) -> str:
    return "/".join(["/api/v1/deadman", quote(name, safe=""), *more])


@switches.command("list")
def list_switches(
    state: Annotated[str | None, typer.Option(help="Only switches in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: AsJson = False,
) -> None:
    """Every switch: its state, its last good sign, and when the next one is due."""
    page = ask("/api/v1/deadman", state=state, limit=limit)
    if as_json:
        print(json.dumps(page, indent=2))
        return
    table = Table("switch", "state", "last good sign", "due", "expects", box=None)
    for item in page["items"]:
        table.add_row(item["name"], item["state"], _when(item["last_at"]), _when(item["due_at"]), item["expects"])
    show(table if page["items"] else "No switch is in that state." if state else "The policy has no switches.")
    if page["next"]:
        show(f"There are more: --limit, or GET /api/v1/deadman?cursor={quote(page['next'])}")


@switches.command("show")
def show_switch(name: Name, as_json: AsJson = False) -> None:
    """One switch: why it is in its state, and its changes of state."""
    found = ask(_path(name))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    show(
        f"{found['name']} is {found['state']} since {time(found['since'])}  group {labels(found['group'])}",
        style="bold",
    )
    show(f"It expects {found['expects']}: {found['every']}, grace {found['grace'] or '0s'}.")
    show(found["explanation"])
    _page(found["name"])
    table = Table("when", "became", "why", box=None, padding=(0, 2, 0, 0))
    for flip in found["flips"]:
        table.add_row(time(flip["at"]), flip["after"], flip["detail"])
    if found["flips"]:
        show(table)


@switches.command()
def pause(
    name: Name,
    until: Annotated[
        str | None, typer.Option(help="RFC 3339, such as 2026-12-01T00:00:00Z; left out: until it is resumed.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; kept for the people who read it later.")] = "",
) -> None:
    """Expect nothing of a switch for a while."""
    paused: dict[str, Any] = ask(_path(name, "pause"), body={"until": until, "reason": reason})
    show(paused["explanation"])
    _page(name)


@switches.command()
def resume(name: Name) -> None:
    """End the pause of a switch. Its period starts again."""
    show(ask(_path(name, "resume"), body={})["explanation"])
    _page(name)


@switches.command()
def forget(name: Name) -> None:
    """Forget what a switch has received."""
    anew = ask(_path(name, "forget"), body={})["begins_anew"]
    show(f"{name} is new again." if anew else f"{name} is gone until an alert brings its value again.")


def _page(name: str) -> None:
    show(f"Its page: {page_url('switches', name)}")


def _when(text: str | None) -> str:
    return time(text) if text else "-"
