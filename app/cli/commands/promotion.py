"""Ask the gate: `promote`, `promotions`, `rollback`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Table

from app.cli.client import AsJson, ask, id_column, show, time

app = typer.Typer()

_WITHIN = 90.0  # seconds; the gate reads for 30 and changes for 20 at the most


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="The registered model, or the model package group.")],
    version: Annotated[str, typer.Argument(help="Its number.")],
    to: Annotated[
        str | None, typer.Option(help="The mark, such as champion; needed when the policy has several.")
    ] = None,
    expected: Annotated[
        str | None, typer.Option(help="The version that must hold the mark now; '' for nobody.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept for the people who read it later.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge and record, change nothing.")] = False,
    override: Annotated[bool, typer.Option("--override", help="In spite of rules and papers; needs --reason.")] = False,
    as_json: AsJson = False,
) -> None:
    """Promote a model version if it passes the policy, and tell what each rule came to. 1: it did not."""
    body: dict[str, Any] = {"model": model, "version": version, "dry_run": dry_run, "override": override}
    body |= {k: v for k, v in {"to": to, "expected": expected, "reason": reason}.items() if v is not None}
    _tell(ask("/api/v1/promotions", body=body, also=(409, 503), within=_WITHIN), as_json=as_json)


@app.command()
def rollback(
    promotion: Annotated[str, typer.Argument(help="Id of the promotion to undo.")],
    reason: Annotated[str | None, typer.Option(help="Why; kept for the people who read it later.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give the mark back to the version that held it before a promotion. 1: it could not be."""
    path = f"/api/v1/promotions/{quote(promotion, safe='')}/rollback"
    body = {} if reason is None else {"reason": reason}
    _tell(ask(path, body=body, also=(409, 503), within=_WITHIN), as_json=as_json)


@app.command()
def promotions(
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    to: Annotated[str | None, typer.Option(help="Only to this mark.")] = None,
    state: Annotated[str | None, typer.Option(help="Only those that came to this, such as blocked.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """The newest promotions, whatever they came to."""
    page = ask("/api/v1/promotions", model=model, to=to, state=state, limit=limit)
    if as_json:
        print(json.dumps(page, indent=2))
        return
    table = Table("when", "model", "version", "to", "state", "by", "where it stands", id_column(), box=None)
    for row in page["items"]:
        state_shown = f"{row['state']} (dry run)" if row["dry_run"] else row["state"]
        about = (row["model"], row["version"], row["to"], state_shown, row["requested_by"], row["detail"])
        table.add_row(time(row["created_at"]), *about, row["id"])
    show(table if page["items"] else "No promotions yet.")
    if page["next"]:
        show(f"There are more: --limit, or GET /api/v1/promotions?cursor={page['next']}")


def _tell(found: dict[str, Any], *, as_json: bool) -> None:
    refused = "status" in found  # a problem
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        show(f"{found['state'] if 'state' in found else found['title']}: {found['detail']}", style="bold")
        table = Table("", "rule", "what it came to", box=None, padding=(0, 2, 0, 0))
        for one in found.get("verdicts", []):
            table.add_row("ok" if one["passed"] else "NO", one["rule"], one["detail"])
        if found.get("verdicts"):
            show(table)
        ident = found.get("promotion") or found.get("id")
        if ident:
            show(f"Kept as promotion {ident}.")
    if refused:
        raise typer.Exit(1)
