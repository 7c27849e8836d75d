"""The data model on one page. Postgres is the authority: what is not here did not happen.

routes      one row a route that has a limit, to be locked while its fires are counted
pauses      one row a route that a person has muted
groups      one row a (route, mode, group): the facts that decisions are made from, with a version
alerts      one row an episode: a fingerprint that fires until it is resolved, goes stale or begins anew
decisions   what was concluded of an episode (or of a refused request), one row a change of mind
triggers    our decision to start one DAG run, followed to its end
outbox      what must reach somebody else's server, one row an item
attempts    what happened on the way there; equal results in a row are folded
notices     what a person must know of, one row an incident: it opens, and is resolved by its key
tellings    one row a receiver of an incident: the outbox items that tell it, and when it is told again
promotions  one row a request to promote a model version or to roll back: verdicts, and the journal of the change
quarantine  bytes that could not be read, and why
schedules   one row a schedule of the policy: its newest occurrence, and what was decided of it
idempotency requests that were answered 201, by their Idempotency-Key, for a day
reports     what components told of their work, by POST /api/v1/metadata
records     metadata on its durable way to MLflow: one write of its REST API a row, in order per stream
local_ids   what an id that a spool made up was called by MLflow
switches    one row a dead man's switch: the facts that its state is judged from
flips       every change of a switch's state
pings       what was said by request to a switch, the newest
dag_reads   up to where the ended runs of a DAG were read, for the switches that expect a retrain
watch       one row: until when somebody watched
audit       what a person or a script asked for: trigger, reset, redrive, cancel, pause, resume, resolve, test, forget

MLflow as it was last seen, and what lacks its lineage, stands in app/lineage/tables.py.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={"ix": "ix_%(table_name)s_%(column_0_N_name)s", "pk": "pk_%(table_name)s"},
)


def _time(name: str, *, nullable: bool = True) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


#: Of a closed alert: when it was last heard of, or closed. Indexed, unlike last_seen_at, which moves with every repeat.
#: The migrations add statistics of it (st_alerts_quiet).
QUIET_SINCE = text("greatest(closed_at, resolved_at, late_at)")

groups = Table(
    "groups",
    metadata,
    Column("key", Text, primary_key=True),  # hash of route, mode and labels: labels may be too long for an index
    _text("route"),
    _text("mode"),
    Column("labels", JSONB, nullable=False),
    _time("fired_at"),  # of the newest trigger
    _time("accepted_at"),  # when Airflow took it
    _time("ended_at"),  # when its DAG run ended, was lost, or the trigger died
    _text("outcome", nullable=True),  # success, failed, lost, gone, dead
    Column("failures", Integer, nullable=False),  # in a row
    _time("reset_at"),
    _time("unconfirmed_at"),  # when Prometheus last did not confirm it; it is asked again a while later
    Column("open_trigger", Uuid),  # held, pending, submitted or running
    _time("held_since"),  # set while the open trigger is held: the start of its debounce
    Column("last_trigger", Uuid),  # the newest that fired
    _text("on_failure", nullable=True),  # of the newest that fired: release or keep, frozen at the fire
    _time("wake_at"),
    Column("version", BigInteger, nullable=False),
    _text("nonce"),  # a counter alone could repeat after a restore from a backup
    Index("ix_groups_wake_at", "wake_at", postgresql_where=text("wake_at IS NOT NULL")),
    Index("ix_groups_route", "route"),
    postgresql_with={"fillfactor": "70"},
)

pauses = Table(
    "pauses",
    metadata,
    Column("route", Text, primary_key=True),  # - is every route
    _time("until"),  # null: until somebody lifts it
    _text("reason"),
    _text("by"),
    _time("at", nullable=False),
)

routes = Table("routes", metadata, Column("name", Text, primary_key=True))  # held while fires are counted

alerts = Table(
    "alerts",
    metadata,
    Column("id", Uuid, primary_key=True),
    _text("alert_id"),
    _text("fingerprint"),
    _text("source"),
    _text("status"),  # firing, resolved
    _text("severity"),
    _time("starts_at", nullable=False),  # the sender's, recorded, never compared with our clock
    _time("ends_at"),  # the sender's
    Column("labels", JSONB, nullable=False),
    Column("annotations", JSONB, nullable=False),
    _text("route", nullable=True),
    _text("group_key", nullable=True),
    Column("group_labels", JSONB, nullable=False),
    Column("count", BigInteger, nullable=False),  # notifications committed
    _time("first_seen_at", nullable=False),
    _time("last_seen_at", nullable=False),
    _time("firing_since", nullable=False),  # our clock; anew when it reopens: the start of its debounce
    _time("closed_at"),  # no longer the open episode of its fingerprint
    _time("resolved_at"),  # when the newest resolved arrived
    _time("late_at"),  # a firing that arrived just after the resolved and may reopen it
    Column("trigger_id", Uuid),  # the newest trigger it is behind
    Column("spent", Boolean, nullable=False),  # a trigger of it succeeded: matters where refire is false
    Column("dismissed", Boolean, nullable=False),  # a person cancelled what it was held for
    Column(
        "decision_id", Uuid, nullable=False
    ),  # the newest decision; its count and time live here while it is the newest
    Column("decision_count", BigInteger, nullable=False),
    _text("reason", nullable=True),  # the newest decision's, to be listed by
    Index("ix_alerts_reason", "reason", "id"),
    Index("ix_alerts_quiet", QUIET_SINCE, "id", postgresql_where=text("closed_at IS NOT NULL")),
    Index("ix_alerts_open_fingerprint", "fingerprint", unique=True, postgresql_where=text("closed_at IS NULL")),
    Index("ix_alerts_fingerprint", "fingerprint", "id"),
    Index("ix_alerts_open_group", "group_key", postgresql_where=text("closed_at IS NULL OR late_at IS NOT NULL")),
    Index("ix_alerts_trigger_id", "trigger_id", postgresql_where=text("trigger_id IS NOT NULL")),
    Index("ix_alerts_route", "route", "id"),
    Index("ix_alerts_alert_id", "alert_id", "id"),
    Index("ix_alerts_labels", "labels", postgresql_using="gin", postgresql_ops={"labels": "jsonb_path_ops"}),
    postgresql_with={"fillfactor": "70"},
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("alert", Uuid),  # null: a request was refused
    Column("trigger_id", Uuid),
    _text("route", nullable=True),
    _text("group_key", nullable=True),
    _text("action"),
    _text("reason"),
    _time("until"),
    _text("detail"),
    _text("policy"),  # hash of the policy it was made by
    Column("count", BigInteger, nullable=False),
    _time("first_at", nullable=False),
    _time("last_at", nullable=False),
    Index("ix_decisions_alert", "alert", "id"),
    Index("ix_decisions_trigger_id", "trigger_id", postgresql_where=text("trigger_id IS NOT NULL")),
    Index("ix_decisions_route", "route", "id"),
    Index("ix_decisions_refused", "route", "first_at", postgresql_where=text("alert IS NULL")),
)

triggers = Table(
    "triggers",
    metadata,
    Column("id", Uuid, primary_key=True),
    _text("route"),
    _text("mode"),
    _text("group_key"),
    Column("group_labels", JSONB, nullable=False),
    _text("reason"),
    _text("state"),  # held, pending, submitted, running, succeeded, failed, dead, cancelled
    _text("outcome", nullable=True),  # success, failed, lost, gone, dead
    _text("detail"),  # one sentence: where it stands
    _text(
        "blocked", nullable=True
    ),  # while pending, what stands in the way: dag_paused, unreachable, max_parallel, ...
    _time("created_at", nullable=False),
    _time("fired_at"),
    _time("accepted_at"),
    _time("started_at"),
    _time("ended_at"),
    _time("lost_at"),  # told as lost; its group stays in flight until Airflow says that it ended
    _text("airflow"),
    _text("dag_id"),
    _text("dag_run_id"),
    Column("conf", JSONB),  # what Airflow gets, frozen at the fire
    Column("run_timeout", Double, nullable=False),  # seconds, frozen at the fire
    _text("on_failure"),  # release, keep: frozen at the fire
    _text("dag_run_state", nullable=True),
    _time("follow_at"),  # when the follower reads its DAG run next
    _text("requested_by", nullable=True),
    _text("policy"),
    Index(
        "ix_triggers_open_group",
        "group_key",
        unique=True,
        postgresql_where=text("state IN ('held', 'pending', 'submitted', 'running')"),
    ),
    Index("ix_triggers_follow_at", "follow_at", postgresql_where=text("follow_at IS NOT NULL")),
    Index("ix_triggers_route", "route", "id"),
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

outbox = Table(
    "outbox",
    metadata,
    Column("id", Uuid, primary_key=True),
    _text("kind"),  # which deliverer takes it
    _text("target"),  # what a breaker and a cap on parallel items are kept for
    _text("lane", nullable=True),  # items of one lane go one after the other, by their `place`
    Column("place", BigInteger, Identity(), nullable=False),
    Column("payload", JSONB, nullable=False),
    _text("state"),  # pending, delivered, dead
    _text("detail"),
    _time("created_at", nullable=False),
    _time("available_at", nullable=False),
    Column("claim", Uuid),
    _time("lease_until"),
    Column("slot", Boolean, nullable=False),  # counts against the target's cap until it is known to be over
    Column("ambiguous", Boolean, nullable=False),  # an earlier attempt may have arrived: read back first
    Column("attempts", Integer, nullable=False),
    _time("answered_at"),  # the newest attempt that the target answered
    Column("answered_seconds", Double, nullable=False),  # spent of its deadline: time during which the target answered
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
    _text("result"),  # delivered, retry, dead
    _text("code"),
    _text("detail"),
    Column("count", Integer, nullable=False),
    _time("first_at", nullable=False),
    _time("last_at", nullable=False),
    Index("ix_attempts_item", "item", "id"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Uuid, primary_key=True),
    _text("key"),  # what is wrong: one open incident a key
    _text("event"),
    _text("severity"),  # critical, error, warning, info
    _text("title"),
    _text("detail"),
    Column("labels", JSONB, nullable=False),
    _text("link", nullable=True),
    _time("opened_at", nullable=False),
    _time("resolved_at"),
    _text("resolution", nullable=True),  # one sentence: how it ended
    Index("ix_notices_open_key", "key", unique=True, postgresql_where=text("resolved_at IS NULL")),
    Index("ix_notices_resolved_at", "resolved_at", "id", postgresql_where=text("resolved_at IS NOT NULL")),
)

tellings = Table(
    "tellings",
    metadata,
    Column("notice", Uuid, primary_key=True),
    Column("receiver", Text, primary_key=True),
    Column("open_item", Uuid, nullable=False),  # of the outbox; sent once more when it is told again
    Column("resolve_item", Uuid),
    Column("repeat", Double),  # seconds between two tellings of an open incident; null: told once
    _time("next_at"),
    Index("ix_tellings_next_at", "next_at", postgresql_where=text("next_at IS NOT NULL")),
    Index("ix_tellings_open_item", "open_item"),
)

#: A promotion whose change is not settled. `moving`: the mark may have been moved, so it is completed and not undone.
OPEN_PROMOTION = text("state IN ('open', 'moving')")

promotions = Table(
    "promotions",
    metadata,
    Column("id", Uuid, primary_key=True),
    _text("kind"),  # promote, rollback
    _text("registry"),
    _text("model"),
    _text("mark"),  # `to`
    _text("version"),  # that wants the mark, or that loses it by a rollback
    _text("state"),  # open, moving | promoted, rolled_back, unchanged, passed, blocked, lost, undone, unreadable
    Column("dry_run", Boolean, nullable=False),
    _text("mode"),
    Column("override", Boolean, nullable=False),
    _text("requested_by"),
    _text("reason", nullable=True),
    _text("expected", nullable=True),
    _text("previous", nullable=True),  # who held the mark; null: nobody
    _text("target", nullable=True),  # who shall hold it; null: nobody
    Column("rollback_of", Uuid),
    Column("verdicts", JSONB, nullable=False),
    Column("tags", JSONB, nullable=False),  # of `version`: those to set
    Column("tags_before", JSONB, nullable=False),  # what these were; null: none
    _text("detail"),
    _text("policy"),  # hash of the policy that judged
    Column("fence", BigInteger, nullable=False),  # counts who worked on the change: an older one must stop
    _time("lease_until"),
    _time("created_at", nullable=False),
    _time("ended_at"),
    Index("ix_promotions_open", "registry", "model", "mark", unique=True, postgresql_where=OPEN_PROMOTION),
    Index("ix_promotions_lease_until", "lease_until", postgresql_where=OPEN_PROMOTION),
    Index("ix_promotions_model", "model", "id"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("sha256", Text, primary_key=True),
    _text("source"),
    _text("error"),
    Column("body", LargeBinary, nullable=False),  # cut at GATEWAY_QUARANTINE_BODY bytes
    Column("size", Integer, nullable=False),  # bytes, before the cut
    Column("count", BigInteger, nullable=False),
    _time("first_at", nullable=False),
    _time("last_at", nullable=False),
    Index("ix_quarantine_last_at", "last_at"),
)

schedules = Table(
    "schedules",
    metadata,
    Column("name", Text, primary_key=True),
    _text("definition"),  # hash of what it says: a schedule that changed counts from then on
    _time(
        "last_at", nullable=False
    ),  # the newest occurrence that was taken, or since when it counts; it only moves forward
    _time("decided_at"),  # when it was taken; null: none has been
    _text("action", nullable=True),  # null: passed over
    _text("reason", nullable=True),
    Column("trigger_id", Uuid),
    _text("detail", nullable=True),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key", Text, primary_key=True),  # hash of the caller's name and its Idempotency-Key
    _text("body"),  # hash of the request
    Column("answer", JSONB),  # what was answered; null only inside the transaction that makes it
    _time("created_at", nullable=False),
    Index("ix_idempotency_created_at", "created_at"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Uuid, primary_key=True),
    _time("at", nullable=False),
    _text("caller"),
    _text("action"),
    _text("subject"),
    Column("detail", JSONB, nullable=False),
    Index("ix_audit_subject", "subject", "id"),
)

reports = Table(
    "reports",
    metadata,
    Column("id", Uuid, primary_key=True),
    _text("key"),  # hash of the caller's name and its key
    _text("body"),  # hash of the report: the same key with another body is a mistake
    _text("run"),  # id of the MLflow run it is about, MLflow's or a local one
    _text("component"),
    _text("state"),  # started, succeeded, failed
    _text("who"),
    Column("trigger_id", Uuid),
    Column("told", JSONB, nullable=False),
    _time("at", nullable=False),
    Index("ix_reports_key", "key", unique=True),
    Index("ix_reports_run", "run", "id"),
    Index("ix_reports_trigger_id", "trigger_id", postgresql_where=text("trigger_id IS NOT NULL")),
    Index("ix_reports_at", "at"),
)

records = Table(
    "records",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),  # their order within a stream
    _text("key"),  # 32 hex digits; a creation carries it to MLflow as a tag
    _text("stream"),
    _text("kind"),
    _text("method"),
    _text("path"),
    _text("body"),  # JSON as text: it may hold NUL, which JSONB cannot
    Column("made_at", BigInteger, nullable=False),  # milliseconds since 1970, of the machine that made it
    Column("attempted_at", BigInteger),  # a request left whose end is not known
    Column("attempts", Integer, nullable=False),
    _text("state"),  # pending, delivered, aside (MLflow refused it for good), elsewhere (a file, on another machine)
    _text("problem", nullable=True),
    Column("report", Uuid),
    _time("at", nullable=False),  # when it was taken
    Index("ix_records_key", "key", unique=True),
    Index(
        "ix_records_models",
        "stream",
        "seq",
        postgresql_where=text("kind IN ('create logged model', 'create model version')"),
    ),
    Index("ix_records_pending", "stream", "seq", postgresql_where=text("state = 'pending'")),
    Index("ix_records_aside", "seq", postgresql_where=text("state = 'aside'")),
    Index("ix_records_stream", "stream", "seq"),
    Index("ix_records_at", "at"),
    postgresql_with={"fillfactor": "80"},
)

local_ids = Table(
    "local_ids",
    metadata,
    Column("token", Text, primary_key=True),
    _text("name"),
    _time("at", nullable=False),
    Index("ix_local_ids_name", "name"),
)

switches = Table(
    "switches",
    metadata,
    Column("name", Text, primary_key=True),
    _text("entry"),  # the name in the policy, its placeholders unfilled
    Column("labels", JSONB, nullable=False),  # the group that it is about
    _text("state"),  # new, up, grace, down, paused; forgotten: hidden until something of it is seen again
    _time("since", nullable=False),  # of the state
    _time("counts_from", nullable=False),
    _time("last_at"),  # the newest good sign
    _text("last_event"),  # what that was, in a few words
    _time("failed_at"),
    Column("starts", JSONB, nullable=False),  # run id to the time at which it began
    Column("allowance", Double, nullable=False),  # seconds that we were away since the last good sign
    _time("paused_until"),
    _text("note"),  # who paused it, and why
)

flips = Table(
    "flips",
    metadata,
    Column("id", Uuid, primary_key=True),
    _text("switch"),
    _time("at", nullable=False),
    _text("before"),
    _text("after"),
    _text("detail"),  # one sentence
    Index("ix_flips_switch", "switch", "id"),
)

pings = Table(
    "pings",
    metadata,
    Column("id", Uuid, primary_key=True),
    _text("switch"),
    _time("at", nullable=False),
    _text("kind"),  # success, start, fail
    _text("run", nullable=True),
    Column("code", Integer),  # exit code
    Column("body", LargeBinary, nullable=False),  # cut at GATEWAY_PING_BODY bytes
    Index("ix_pings_switch", "switch", "id"),
)

dag_reads = Table(
    "dag_reads",
    metadata,
    Column("airflow", Text, primary_key=True),
    Column("dag_id", Text, primary_key=True),
    _time("newest", nullable=False),  # Airflow's time: the end of the newest run that was read
    _time("read_at"),  # our time, before the newest read that was answered
    _time("next_at", nullable=False),
    _text("error"),  # why the newest read brought nothing; ""
)

watch = Table(
    "watch",
    metadata,
    Column("id", Integer, primary_key=True),
    _time("watched_until", nullable=False),
    _time("gap_until"),  # the end of our newest outage
)
