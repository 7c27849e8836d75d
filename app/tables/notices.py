"""The incidents, and the receivers that each was sent to."""

from sqlalchemy import Column, Double, Index, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from app.kit.columns import metadata, time, words

notices = Table(
    "notices",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("key"),  # names the fault: at most one open incident a key
    words("event"),
    words("severity"),  # critical, error, warning, info
    words("title"),
    words("detail"),
    Column("labels", JSONB, nullable=False),
    words("link", nullable=True),
    time("opened_at", nullable=False),
    time("resolved_at"),
    words("resolution", nullable=True),  # one sentence: how the incident ended
    Index("ix_notices_open_key", "key", unique=True, postgresql_where=text("resolved_at IS NULL")),
    Index("ix_notices_resolved_at", "resolved_at", "id", postgresql_where=text("resolved_at IS NOT NULL")),
)

tellings = Table(
    "tellings",
    metadata,
    Column("notice", Uuid, primary_key=True),
    Column("receiver", Text, primary_key=True),
    Column("open_item", Uuid, nullable=False),  # of the outbox; each repeat sends this item again
    Column("resolve_item", Uuid),
    Column("repeat", Double),  # seconds between two messages of an open incident; null: one message
    time("next_at"),
    Index("ix_tellings_next_at", "next_at", postgresql_where=text("next_at IS NOT NULL")),
    Index("ix_tellings_open_item", "open_item"),
)
