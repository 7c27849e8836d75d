"""What must reach another server, and the attempts at it."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Identity, Index, Integer, Table, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from app.kit.columns import metadata, time, words

outbox = Table(
    "outbox",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("kind"),  # which destination takes it
    words("target"),  # has a breaker and a cap of its own
    words("lane", nullable=True),  # its items go one after the other, by their `place`
    Column("place", BigInteger, Identity(), nullable=False),
    Column("payload", JSONB, nullable=False),
    words("state"),  # pending, delivered, dead
    words("detail"),
    time("created_at", nullable=False),
    time("available_at", nullable=False),
    Column("claim", Uuid),
    time("lease_until"),
    Column("slot", Boolean, nullable=False),  # counts against the target's cap while what it started may go on
    Column("ambiguous", Boolean, nullable=False),  # an earlier attempt may have arrived: read back first
    Column("attempts", Integer, nullable=False),  # since it became pending, or since a part of it arrived
    time("answered_at"),  # the newest attempt that the target answered
    Column("answered_seconds", Double, nullable=False),  # of its deadline: time in which the target answered
    Index("ix_outbox_pending", "target", "created_at", postgresql_where=text("state = 'pending'")),
    Index("ix_outbox_dead", "target", postgresql_where=text("state = 'dead'")),
    Index("ix_outbox_slot", "target", postgresql_where=text("slot")),
    Index("ix_outbox_lane", "lane", "place", postgresql_where=text("state = 'pending' AND lane IS NOT NULL")),
    postgresql_with={"fillfactor": "80"},
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("item", Uuid, nullable=False),
    words("result"),  # delivered, retry, dead
    words("code"),
    words("detail"),
    Column("count", Integer, nullable=False),
    time("first_at", nullable=False),
    time("last_at", nullable=False),
    Index("ix_attempts_item", "item", "id"),
)
