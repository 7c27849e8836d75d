"""The effect of each trigger that ended, and the times in which no gateway could hear an alert."""

from sqlalchemy import Column, DateTime, Index, Table, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from app.kit.columns import metadata, time, words


def judged_since(moment: str) -> str:
    """In SQL: the triggers and probations that are not judged yet, and that were there at a moment. What was heard or not
    heard then is kept for them."""
    return f"""
        SELECT 1 FROM effects e JOIN triggers t ON t.id = e.trigger_id WHERE e.next_at IS NOT NULL AND t.fired_at <= {moment}
        UNION ALL SELECT 1 FROM promotions p WHERE p.probation_at IS NOT NULL AND p.ended_at <= {moment}
    """


effects = Table(
    "effects",
    metadata,
    Column("trigger_id", Uuid, primary_key=True),
    words("effect", nullable=True),  # null: not known yet
    words("reason"),
    words("detail"),  # one sentence
    time("until"),  # when it may change without a new fact
    time("at", nullable=False),  # since when it says so; of a known effect: when it was judged
    time("counts_from"),  # when `settle` and `watch` began: the promotion, or the end of the run
    words("model", nullable=True),
    words("version", nullable=True),
    Column("promotion", Uuid),
    words("under", nullable=True),  # the digest of the route when it was judged
    Column("former", JSONB, nullable=False),  # the effects that a later fact replaced, the oldest first
    time("next_at"),  # when it is judged again; null: only a new fact changes it
    time("announce_at"),  # when its good end is announced; null: nothing is left to send
    Index("ix_effects_next_at", "next_at", postgresql_where=text("next_at IS NOT NULL")),
    Index("ix_effects_announce_at", "announce_at", postgresql_where=text("announce_at IS NOT NULL")),
    Index(
        "ix_effects_movable",
        "trigger_id",
        postgresql_where=text("effect IN ('no_model', 'not_promoted', 'unknown')"),
    ),
)

outages = Table(
    "outages",
    metadata,
    Column("since", DateTime(timezone=True), primary_key=True),
    time("until", nullable=False),
)
