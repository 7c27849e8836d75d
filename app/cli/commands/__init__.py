"""The commands that talk to a running gateway over HTTP, a file a capability, and `backtest`."""

import typer

from app.cli.commands import backtest, deadman, effects, export, lineage, notices, pauses, promotion, triggers

#: Each has an `app` of its own; `app.cli.main` takes their commands over.
GROUPS: tuple[typer.Typer, ...] = (
    triggers.app,
    effects.app,
    lineage.app,
    promotion.app,
    deadman.app,
    notices.app,
    pauses.app,
    backtest.app,
    export.app,
)
