"""What a replay needs beside the decisions: when alerts were heard, policies, and answers of Prometheus."""

from sqlalchemy import Boolean, Column, DateTime, Index, Integer, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.kit.columns import metadata, time, words

heard = Table(
    "heard",
    metadata,
    Column("alert", Uuid, primary_key=True),
    Column("since", DateTime(timezone=True), primary_key=True),  # the beginning of six hours
    Column("times", ARRAY(Integer), nullable=False),  # twice the milliseconds since then, and one for a resolved
    Index("ix_heard_since", "since", "alert"),
    postgresql_with={"fillfactor": "70"},
)

policies = Table(
    "policies",
    metadata,
    Column("hash", Text, primary_key=True),
    words("text"),  # without its secrets
    time("first_at", nullable=False),
)

in_force = Table(
    "in_force",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("hash"),
    words("replica"),  # the name of its host
    time("since", nullable=False),
    time("until", nullable=False),  # in force at least until then: the replica moves it on now and then
    words("diff"),  # against the policy that the replica had before, as `diff -u` writes it
    Index("ix_in_force_replica", "replica", "id"),
)

confirms = Table(
    "confirms",
    metadata,
    Column("id", Uuid, primary_key=True),
    time("at", nullable=False),
    words("route"),
    Column("group_labels", JSONB, nullable=False),
    Column("confirmed", Boolean),  # null: it gave no answer, and `on_error` counted
    words("detail"),
)
