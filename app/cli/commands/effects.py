"""Did retraining help: `effect`."""

import json
from typing import Annotated, Any

import typer

from app.cli.client import AsJson, Table, ask, show

app = typer.Typer()

_COLUMNS = ("retrains", "fixed", "recurred", "no better model", "failed", "unknown", "waiting", "run hours", "per fix")


@app.command()
def effect(
    since: Annotated[str, typer.Option(help="Retrains since then: how long ago, such as 90d, or RFC 3339.")] = "90d",
    route: Annotated[str | None, typer.Option(help="Only this route.")] = None,
    model: Annotated[str | None, typer.Option(help="Only this model.")] = None,
    as_json: AsJson = False,
) -> None:
    """Did retraining help? A line a model: its retrains, what each came to, and what they cost."""
    answer = ask("/api/v1/effects", since=since, route=route, model=model)
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    if not answer["models"]:
        show(f"No trigger has fired since {answer['since']}.")
        return
    table = Table("model", *_COLUMNS, box=None)
    for row in answer["models"]:
        table.add_row(row["model"], *_cells(row))
    show(table)
    for row in answer["models"]:
        show(f"{row['summary']}.")
    if left_out := answer.get("groups_left_out"):
        show(
            f"Not counted are {left_out} groups that fired longer ago. Ask for a --route, a --model or a later --since."
        )


def _cells(row: dict[str, Any]) -> list[str]:
    """The cells of a model, in the order of _COLUMNS. A model that is not promoted counts as no better one."""
    counts = (row["retrains"], row["fixed"], row["recurred"], row["no_model"] + row["not_promoted"], row["failed"])
    per_fix = row["run_hours_per_fix"]
    hours = (f"{row['run_hours']:.1f}", "-" if per_fix is None else f"{per_fix:.1f}")
    return [*map(str, (*counts, row["unknown"], row["waiting"])), *hours]
