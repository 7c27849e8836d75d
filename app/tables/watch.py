"""The dead man's switches, and the time until which the gateway watched them."""

from sqlalchemy import Column, Double, Index, Integer, LargeBinary, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from app.kit.columns import metadata, time, words

switches = Table(
    "switches",
    metadata,
    Column("name", Text, primary_key=True),  # its address; the entry and the labels are what it is
    words("entry"),  # the name in the policy, its placeholders unfilled
    Column("labels", JSONB, nullable=False),  # the labels of its group
    words("state"),  # new, up, grace, down, paused; forgotten: hidden until the switch is seen again
    time("since", nullable=False),  # of the state
    time("counts_from", nullable=False),
    time("last_at"),  # the newest good sign
    words("last_event"),  # a few words on that sign
    time("failed_at"),
    Column("starts", JSONB, nullable=False),  # start time by run id
    Column("allowance", Double, nullable=False),  # seconds without our watch since the last good sign
    time("paused_until"),
    words("note"),  # who paused it, and why
    Index("ix_switches_identity", "entry", "labels", unique=True),
)

flips = Table(
    "flips",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("switch"),
    time("at", nullable=False),
    words("before"),
    words("after"),
    words("detail"),  # one sentence
    Index("ix_flips_switch", "switch", "id"),
)

pings = Table(
    "pings",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("switch"),
    time("at", nullable=False),
    words("kind"),  # success, start, fail
    words("run", nullable=True),
    Column("code", Integer),  # exit code
    Column("body", LargeBinary, nullable=False),  # cut at GATEWAY_PING_BODY bytes
    Index("ix_pings_switch", "switch", "id"),
)

dag_reads = Table(
    "dag_reads",
    metadata,
    Column("airflow", Text, primary_key=True),
    Column("dag_id", Text, primary_key=True),
    time("newest", nullable=False),  # Airflow's time: the end of the newest run that was read
    time("read_at"),  # our time, before the newest read that got an answer
    time("next_at", nullable=False),
    words("error"),  # why the newest read failed; "": it did not fail
)

watch = Table(
    "watch",
    metadata,
    Column("id", Integer, primary_key=True),  # 1: the dead man's watch; 2: the wakes of held groups (app.groups.wakes)
    time("watched_until", nullable=False),
    time("gap_until"),  # the end of our newest outage
)
