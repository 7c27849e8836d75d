"""Mute a route now, or end that: `pause`."""

import json
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import quote

import typer

from app.cli.client import AsJson, ask, show, time
from app.kit.errors import UsageError

app = typer.Typer()


@app.command()
def pause(
    route: Annotated[str, typer.Argument(help="Name of the route; - is every route.")],
    reason: Annotated[str | None, typer.Option(help="Why; kept for the people who read it later.")] = None,
    until: Annotated[str | None, typer.Option(help="RFC 3339; left out: until the pause is lifted.")] = None,
    lift: Annotated[bool, typer.Option("--lift", help="End the pause now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Mute a route at once: none of its alerts fires until then. Alerts that still fire are decided again afterwards."""
    path = f"/api/v1/routes/{quote(route, safe='')}/pause"
    named = "Every route" if route == "-" else f"The route {route}"
    if lift:
        if reason is not None or until is not None:
            raise UsageError("--lift ends a pause; it takes no --reason and no --until")
        answer = ask(path, method="DELETE")
        sentence = f"{named} goes on; it was paused by {answer['by']}: {answer['reason']}."
    else:
        if reason is None:
            raise UsageError("say why with --reason, for the people who read it later")
        answer = ask(path, body={"reason": reason, "until": _time(until)})
        end = f"until {time(answer['until'])} UTC" if answer["until"] else "until it is lifted"
        sentence = f"{named} is paused {end}. Sooner:  trigger-gateway pause {route} --lift"
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        show(sentence)


def _time(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--until {text} is no time such as 2026-12-24T18:00Z") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()
