"""The backtests that were asked for over HTTP, each with its answer while it is kept."""

from sqlalchemy import Column, Index, Integer, Table, Uuid, text

from app.kit.columns import metadata, time, words

#: A condition in SQL: the backtest has no answer yet.
OPEN_BACKTEST = "state IN ('pending', 'running')"

backtests = Table(
    "backtests",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("caller"),  # the name of the token
    words("asked"),  # the question as JSON, without secrets
    words("state"),  # pending, running, succeeded, failed
    time("created_at", nullable=False),
    time("started_at"),
    time("ended_at"),
    Column("claim", Uuid),  # of the process that works at it
    time("alive_at"),  # that process worked at it then
    Column("attempts", Integer, nullable=False),
    words("step", nullable=True),  # what is done now, and how much of it
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    words("error", nullable=True),
    words("result", nullable=True),  # the report as JSON
    Column("size", Integer, nullable=False),  # bytes of the report
    Index("ix_backtests_open_caller", "caller", unique=True, postgresql_where=text(OPEN_BACKTEST)),
)
