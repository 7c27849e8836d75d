"""MLflow as it was last seen, and what lacks its lineage: the rest of the data model, beside app/tables.py.

runs      MLflow's runs, with the trigger that each names
versions  MLflow's model versions, with the run that each names
aliases   MLflow's aliases
orphans   what lacks a link of its lineage, one row a fault
surveys   how far the walk over MLflow has come
"""

from sqlalchemy import Boolean, Column, DateTime, Index, Integer, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from app.tables import metadata


def _time(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    _text("experiment_id"),
    _text("name"),
    _text("status"),  # MLflow's
    Column("deleted", Boolean, nullable=False),
    Column("trigger_id", Uuid),  # of the tag gateway.trigger_id, whether we have such a trigger or not
    _text("dag_run_id", nullable=True),  # of the tag airflow.dag_run_id
    _text("git_commit", nullable=True),
    _text("parent", nullable=True),
    Column("metrics", Integer, nullable=False),  # how many
    _time("started_at"),  # MLflow's clock, as ended_at
    _time("ended_at"),
    _time("seen_at", nullable=False),
    Index("ix_runs_trigger_id", "trigger_id", postgresql_where=text("trigger_id IS NOT NULL")),
    Index("ix_runs_dag_run_id", "dag_run_id", postgresql_where=text("dag_run_id IS NOT NULL")),
)

versions = Table(
    "versions",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    _text("run_id", nullable=True),
    _text("status"),
    _time("created_at"),  # MLflow's clock
    _time("seen_at", nullable=False),
    Index("ix_versions_run_id", "run_id", postgresql_where=text("run_id IS NOT NULL")),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    _text("version"),
    _time("seen_at", nullable=False),
)

orphans = Table(
    "orphans",
    metadata,
    Column("key", Text, primary_key=True),
    _text("kind"),
    _text("missing"),
    _text("detail"),
    Column("about", JSONB, nullable=False),
    _time("first_at", nullable=False),
    _time("last_at", nullable=False),
    Index("ix_orphans_kind", "kind", "key"),
    Index("ix_orphans_last_at", "last_at"),
)

surveys = Table(
    "surveys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("place", JSONB(none_as_null=True)),  # where the round under way goes on; null: none is
    _time("began_at"),  # of the newest round
    _time("ended_at"),  # of the newest round that came to its end
    Column("claim", Uuid),
    _time("lease_until"),
)
