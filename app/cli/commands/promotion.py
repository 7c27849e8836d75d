"""The commands of the promotion gate: `promote`, `promotions`, `rollback`."""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from app.cli.client import AsJson, Table, ask, id_column, show, time

app = typer.Typer()

_WITHIN = 90.0  # seconds; the gate reads for 30 at most, and changes for 20


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="The registered model, or the model package group.")],
    version: Annotated[str, typer.Argument(help="The version's number.")],
    to: Annotated[
        str | None, typer.Option(help="The alias, such as champion; needed when the policy has several.")
    ] = None,
    expected: Annotated[str | None, typer.Option(help="The version that must hold the alias now; '' for none.")] = None,
    reason: Annotated[str | None, typer.Option(help="Why; kept for the people who read it later.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge and record, change nothing.")] = False,
    override: Annotated[
        bool, typer.Option("--override", help="Promote in spite of rules and required metadata; needs --reason.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Promote a model version if it passes the policy, and show each verdict. Exit code 1: the promotion failed."""
    body: dict[str, Any] = {"model": model, "version": version, "dry_run": dry_run, "override": override}
    body |= {k: v for k, v in {"to": to, "expected": expected, "reason": reason}.items() if v is not None}
    _show_result(ask("/api/v1/promotions", body=body, also=(409, 503), within=_WITHIN), as_json=as_json)


@app.command()
def rollback(
    promotion: Annotated[str, typer.Argument(help="Id of the promotion to undo.")],
    reason: Annotated[str | None, typer.Option(help="Why; kept for the people who read it later.")] = None,
    as_json: AsJson = False,
) -> None:
    """Give the alias back to the version that held it before a promotion. Exit code 1: it was not given back."""
    path = f"/api/v1/promotions/{quote(promotion, safe='')}/rollback"
    body = {} if reason is None else {"reason": reason}
    _show_result(ask(path, body=body, also=(409, 503), within=_WITHIN), as_json=as_json)


@app.command()
def promotions(
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    to: Annotated[str | None, typer.Option(help="Only to this alias.")] = None,
    state: Annotated[str | None, typer.Option(help="Only in this state, such as blocked.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest promotions and rollbacks, in whatever state."""
    page = ask("/api/v1/promotions", model=model, to=to, state=state, limit=limit)
    if as_json:
        print(json.dumps(page, indent=2))
        return
    table = Table("when", "model", "version", "to", "state", "by", "where it stands", id_column(), box=None)
    for row in page["items"]:
        state_shown = f"{row['state']} (dry run)" if row["dry_run"] else row["state"]
        probation = row["probation"]
        stands = (
            f"{row['detail']}; probation {probation['state']}: {probation['detail']}" if probation else row["detail"]
        )
        cells = (row["model"], row["version"], row["to"], state_shown, row["requested_by"], stands)
        table.add_row(time(row["created_at"]), *cells, row["id"])
    show(table if page["items"] else "No promotions yet.")
    if page["next"]:
        show(f"There are more: --limit, or GET /api/v1/promotions?cursor={page['next']}")


def _show_result(found: dict[str, Any], *, as_json: bool) -> None:
    refused = "status" in found  # a problem
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        show(f"{found['state'] if 'state' in found else found['title']}: {found['detail']}", style="bold")
        table = Table("", "rule", "result", box=None, padding=(0, 2, 0, 0))
        for verdict in found.get("verdicts", []):
            table.add_row("ok" if verdict["passed"] else "NO", verdict["rule"], verdict["detail"])
        if found.get("verdicts"):
            show(table)
        ident = found.get("promotion") or found.get("id")
        if ident:
            show(f"Kept as promotion {ident}.")
    if refused:
        raise typer.Exit(1)
