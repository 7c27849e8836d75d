"""What a replay needs beside the decisions: the policies that were in force, and the answers of Prometheus."""

from sqlalchemy import Boolean, Column, Index, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from app.kit.columns import metadata, time, words

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
    Column("confirmed", Boolean, nullable=False),
    words("detail"),
)
