"""From an alert to a trigger: the alerts, the decisions on them, and the requests of people."""

from sqlalchemy import BigInteger, Boolean, Column, Double, Index, Integer, LargeBinary, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from app.kit.columns import metadata, time, words

#: Since when a closed alert is quiet. Indexed, unlike last_seen_at, which changes with every repeat.
#: A migration adds statistics on it (st_alerts_quiet).
QUIET_SINCE = "greatest(closed_at, resolved_at, late_at)"

#: The names of a group's labels, in one order. A route has as many of them as it has had different `group_by`.
SHAPE = "jsonb_path_query_array(labels, '$.keyvalue().key')"

groups = Table(
    "groups",
    metadata,
    Column("key", Text, primary_key=True),  # hash of route, mode and labels, which may be too long for an index
    words("route"),
    words("mode"),
    Column("labels", JSONB, nullable=False),
    time("fired_at"),  # of the newest trigger
    time("accepted_at"),  # when Airflow accepted it
    time("ended_at"),  # when its DAG run ended or was lost, or the trigger died
    words("outcome", nullable=True),  # success, failed, lost, gone, dead
    Column("failures", Integer, nullable=False),  # in a row
    time("reset_at"),
    time("unconfirmed_at"),  # when Prometheus last did not confirm it; it is asked again later
    Column("open_trigger", Uuid),  # held, pending, submitted or running
    time("held_since"),  # set while the open trigger is held: the start of its debounce
    Column("last_trigger", Uuid),  # the newest that fired
    words("on_failure", nullable=True),  # of the newest that fired: release or keep, frozen at the fire
    time("wake_at"),
    Column("ineffective", Integer, nullable=False, server_default=text("0")),  # retrains in a row that did not help
    time("ineffective_since"),  # when the first of them fired
    words("ineffective_under", nullable=True),  # the digest of the route for which that counts
    time("released_at"),  # only retrains that fired later count
    Column("version", BigInteger, nullable=False),
    words("nonce"),  # a counter alone could repeat after a restore from a backup
    Index("ix_groups_wake_at", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
    Index("ix_groups_route", "route"),
    Index("ix_groups_shape", "route", "mode", text(SHAPE), postgresql_where=text("last_trigger IS NOT NULL")),
    Index("ix_groups_ineffective", "key", postgresql_where=text("ineffective > 0")),
    postgresql_with={"fillfactor": "70"},
)

pauses = Table(
    "pauses",
    metadata,
    Column("route", Text, primary_key=True),  # "-": every route
    time("until"),  # null: until a person ends it
    words("reason"),
    words("by"),
    time("at", nullable=False),
)

routes = Table("routes", metadata, Column("name", Text, primary_key=True))  # locked while fires are counted

alerts = Table(
    "alerts",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("alert_id"),
    words("fingerprint"),
    words("source"),
    words("status"),  # firing, resolved
    words("severity"),
    time("starts_at", nullable=False),  # the sender's, recorded, never compared with our clock
    time("ends_at"),  # the sender's
    Column("labels", JSONB, nullable=False),
    Column("annotations", JSONB, nullable=False),
    words("route", nullable=True),
    words("group_key", nullable=True),
    Column("group_labels", JSONB, nullable=False),
    Column("count", BigInteger, nullable=False),  # notifications committed
    time("first_seen_at", nullable=False),
    time("last_seen_at", nullable=False),
    time("firing_since", nullable=False),  # our clock, set again when it reopens: the start of its debounce
    time("closed_at"),  # no longer the open episode of its fingerprint
    time("resolved_at"),  # when the newest resolved arrived
    time("late_at"),  # when a firing arrived just after the resolved; it may reopen the alert
    Column("trigger_id", Uuid),  # the newest trigger it is behind
    Column("spent", Boolean, nullable=False),  # a trigger of it succeeded; matters with refire: false
    Column("dismissed", Boolean, nullable=False),  # a person cancelled the hold that it was behind
    Column(
        "decision_id", Uuid, nullable=False
    ),  # the newest decision; while it is the newest, its count and time are here
    Column("decision_count", BigInteger, nullable=False),
    words("reason", nullable=True),  # of the newest decision, for lists
    Index("ix_alerts_reason", "reason", "id"),
    Index("ix_alerts_quiet", text(QUIET_SINCE), "id", postgresql_where=text("closed_at IS NOT NULL")),
    Index("ix_alerts_open_fingerprint", "fingerprint", unique=True, postgresql_where=text("closed_at IS NULL")),
    Index("ix_alerts_fingerprint", "fingerprint", "id"),
    Index("ix_alerts_open_group", "group_key", postgresql_where=text("closed_at IS NULL OR late_at IS NOT NULL")),
    Index("ix_alerts_group_seen", "group_key", "first_seen_at"),
    Index("ix_alerts_trigger_id", "trigger_id", postgresql_where=text("trigger_id IS NOT NULL")),
    Index("ix_alerts_route", "route", "id"),
    Index("ix_alerts_group", "group_key", "id"),
    Index("ix_alerts_alert_id", "alert_id", "id"),
    Index("ix_alerts_labels", "labels", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}),
    postgresql_with={"fillfactor": "70"},
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("alert", Uuid),  # null: the decision refuses a request
    Column("trigger_id", Uuid),
    words("route", nullable=True),
    words("group_key", nullable=True),
    words("action"),
    words("reason"),
    time("until"),
    words("detail"),
    words("policy"),  # hash of the policy in force
    Column("count", BigInteger, nullable=False),
    time("first_at", nullable=False),
    time("last_at", nullable=False),
    Index("ix_decisions_alert", "alert", "id"),
    Index("ix_decisions_trigger_id", "trigger_id", postgresql_where=text("trigger_id IS NOT NULL")),
    Index("ix_decisions_route", "route", "id"),
    Index("ix_decisions_refused", "route", "first_at", postgresql_where=text("alert IS NULL")),
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("route"),
    words("mode"),
    words("group_key"),
    Column("group_labels", JSONB, nullable=False),
    words("reason"),
    words("state"),  # held, pending, submitted, running, succeeded, failed, dead, cancelled
    words("outcome", nullable=True),  # success, failed, lost, gone, dead
    words("detail"),  # one sentence on its state
    words(
        "blocked", nullable=True
    ),  # while pending, what stands in the way: dag_paused, unreachable, max_parallel, ...
    time("created_at", nullable=False),
    time("fired_at"),
    time("accepted_at"),
    time("started_at"),
    time("ended_at"),
    time("lost_at"),  # when it counted as lost; its group stays in flight until Airflow shows the end
    time("unread_since"),  # since when its DAG run cannot be read
    words("airflow"),
    words("dag_id"),
    words("dag_run_id"),
    Column("conf", JSONB),  # what Airflow gets, frozen at the fire
    Column("run_timeout", Double, nullable=False),  # seconds, frozen at the fire
    words("on_failure"),  # release, keep: frozen at the fire
    words("dag_run_state", nullable=True),
    time("follow_at"),  # when the follower reads its DAG run next
    words("requested_by", nullable=True),
    words("policy"),
    Index(
        "ix_triggers_open_group",
        "group_key",
        unique=True,
        postgresql_where=text("state IN ('held', 'pending', 'submitted', 'running')"),
    ),
    Index("ix_triggers_follow_at", "follow_at", postgresql_where=text("follow_at IS NOT NULL")),
    Index("ix_triggers_route", "route", "id"),
    Index("ix_triggers_group", "group_key", "id"),
    Index("ix_triggers_route_fired_at", "route", "fired_at"),
    Index("ix_triggers_state", "state", "id"),
    Index("ix_triggers_reason", "reason", "id"),
    Index("ix_triggers_created_at", "created_at"),
    Index("ix_triggers_ended_at", "ended_at", "id", postgresql_where=text("ended_at IS NOT NULL")),
    Index("ix_triggers_success", "route", "ended_at", postgresql_where=text("state = 'succeeded'")),
    Index(
        "ix_triggers_group_labels",
        "group_labels",
        postgresql_using="gin",
        postgresql_ops={"group_labels": "jsonb_path_ops"},
    ),
    Index("ix_triggers_dag_run_id", "dag_run_id"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", Text, primary_key=True),
    words("definition"),  # hash of the entry: a changed schedule counts from the change on
    time(
        "last_at", nullable=False
    ),  # the newest occurrence that was taken, or since when it counts; it only moves forward
    time("decided_at"),  # when that was; null: none was taken
    words("action", nullable=True),  # null: the occurrence was skipped
    words("reason", nullable=True),
    Column("trigger_id", Uuid),
    words("detail", nullable=True),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),  # hash of the caller's name and its Idempotency-Key
    words("body"),  # hash of the request
    Column("answer", JSONB),  # the answer; null only inside the transaction that makes it
    time("created_at", nullable=False),
    Index("ix_idempotency_created_at", "created_at"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("sha256", Text, primary_key=True),
    words("source"),
    words("error"),
    Column("body", LargeBinary, nullable=False),  # cut at GATEWAY_QUARANTINE_BODY bytes
    Column("size", Integer, nullable=False),  # bytes, before the cut
    Column("count", BigInteger, nullable=False),
    time("first_at", nullable=False),
    time("last_at", nullable=False),
    Index("ix_quarantine_last_at", "last_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Uuid, primary_key=True),
    time("at", nullable=False),
    words("caller"),
    words("action"),
    words("subject"),
    Column("detail", JSONB, nullable=False),
    Index("ix_audit_subject", "subject", "id"),
)

session_key = Table(
    "session_key",
    metadata,
    Column("id", Integer, primary_key=True),  # 1
    Column("key", LargeBinary, nullable=False),  # 32 random bytes
)
