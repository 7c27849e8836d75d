"""Runs and model versions: reports on their way to MLflow, promotions, and MLflow as it was last seen."""

from sqlalchemy import BigInteger, Boolean, Column, Identity, Index, Integer, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import JSONB

from app.kit.columns import metadata, time, words

reports = Table(
    "reports",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("key"),  # hash of the caller's name and its key
    words("body"),  # hash of the report: the same key with another body is refused
    words("run"),  # id of the report's run, MLflow's or a local one
    words("component"),
    words("state"),  # started, succeeded, failed
    words("who"),
    Column("trigger_id", Uuid),
    Column("told", JSONB, nullable=False),
    time("at", nullable=False),
    Index("ix_reports_key", "key", unique=True),
    Index("ix_reports_run", "run", "id"),
    Index("ix_reports_trigger_id", "trigger_id", postgresql_where=text("trigger_id IS NOT NULL")),
    Index("ix_reports_at", "at"),
)

records = Table(
    "records",
    metadata,
    Column("seq", BigInteger, Identity(always=True), primary_key=True),  # their order within a stream
    words("key"),  # 32 hex digits; a record that creates something sends it to MLflow as a tag
    words("stream"),
    words("kind"),
    words("method"),
    words("path"),
    words("body"),  # JSON as text: it may hold NUL, which JSONB cannot
    Column("made_at", BigInteger, nullable=False),  # milliseconds since 1970, by the clock of the machine that made it
    Column("attempted_at", BigInteger),  # when a request left whose result is not known
    Column("attempts", Integer, nullable=False),
    time("missing_since"),  # since when MLflow answers that it does not know an id in it
    words("state"),  # pending, delivered, aside (MLflow refused it for good), elsewhere (a file, on another machine)
    words("problem", nullable=True),
    Column("report", Uuid),
    words("caller", nullable=True),  # the token that handed it over; null: a report, or taken before this column
    # As whom and where it was logged; empty: with the login of the policy, in MLflow's default workspace.
    Column("login", Text, nullable=False, server_default=""),
    Column("workspace", Text, nullable=False, server_default=""),
    time("at", nullable=False),  # when the gateway took it
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
    words("name"),
    time("at", nullable=False),
    Index("ix_local_ids_name", "name"),
)

#: A promotion whose change is not settled. `moving`: the alias may have moved, so the change is completed, not undone.
OPEN_PROMOTION = text("state IN ('open', 'moving')")

promotions = Table(
    "promotions",
    metadata,
    Column("id", Uuid, primary_key=True),
    words("kind"),  # promote, rollback
    words("registry"),
    words("model"),
    words("mark"),  # the alias: `to` in the API
    words("version"),  # that gets the alias, or loses it by a rollback
    words("state"),  # open, moving | promoted, rolled_back, unchanged, passed, blocked, lost, undone, unreadable
    Column("dry_run", Boolean, nullable=False),
    words("mode"),
    Column("override", Boolean, nullable=False),
    words("requested_by"),
    words("reason", nullable=True),
    words("expected", nullable=True),
    words("previous", nullable=True),  # the version that held the alias before; null: none
    words("target", nullable=True),  # the version that should hold it afterwards; null: none
    Column("rollback_of", Uuid),
    Column("verdicts", JSONB, nullable=False),
    Column("tags", JSONB, nullable=False),  # the tags to write on `version`
    Column("tags_before", JSONB, nullable=False),  # their values before; null: no such tag
    words("detail"),
    words("policy"),  # hash of the policy in force
    Column("fence", BigInteger, nullable=False),  # counts the workers of the change: an older worker must stop
    time("lease_until"),
    time("created_at", nullable=False),
    time("ended_at"),
    Column("trigger_id", Uuid),  # of the run of `version`; null: none, or from before this column
    Column("metrics", JSONB(none_as_null=True)),  # of `version`, beside those of `previous`
    Column("probation", JSONB(none_as_null=True)),  # its state, until when, and a sentence; null: there was none
    Column("probation_alert", Uuid),  # that spoke against the version
    time("probation_at"),  # when it is judged again; null: it is over
    # One change of a model at a time: the aliases of a version share its tags, and in SageMaker one value.
    Index("ix_promotions_open", "registry", "model", unique=True, postgresql_where=OPEN_PROMOTION),
    Index("ix_promotions_lease_until", "lease_until", postgresql_where=OPEN_PROMOTION),
    Index("ix_promotions_model", "model", "id"),
    Index("ix_promotions_probation_at", "probation_at", postgresql_where=text("probation_at IS NOT NULL")),
    Index("ix_promotions_probation_alert", "probation_alert", postgresql_where=text("probation_alert IS NOT NULL")),
    Index("ix_promotions_probation_trigger", "trigger_id", postgresql_where=text("probation IS NOT NULL")),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", Text, primary_key=True),
    words("experiment_id"),
    words("name"),
    words("status"),  # MLflow's
    Column("deleted", Boolean, nullable=False),
    Column("trigger_id", Uuid),  # of the tag gateway.trigger_id; the gateway may not have that trigger
    words("dag_run_id", nullable=True),  # of the tag airflow.dag_run_id
    words("git_commit", nullable=True),
    words("parent", nullable=True),
    Column("metrics", Integer, nullable=False),  # how many
    time("started_at"),  # MLflow's clock, as ended_at
    time("ended_at"),
    time("seen_at", nullable=False),
    Index("ix_runs_trigger_id", "trigger_id", postgresql_where=text("trigger_id IS NOT NULL")),
    Index("ix_runs_dag_run_id", "dag_run_id", postgresql_where=text("dag_run_id IS NOT NULL")),
)

versions = Table(
    "versions",
    metadata,
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    words("run_id", nullable=True),
    words("status"),
    time("created_at"),  # MLflow's clock
    time("seen_at", nullable=False),
    Index("ix_versions_run_id", "run_id", postgresql_where=text("run_id IS NOT NULL")),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", Text, primary_key=True),
    Column("alias", Text, primary_key=True),
    words("version"),
    time("seen_at", nullable=False),
)

orphans = Table(
    "orphans",
    metadata,
    Column("key", Text, primary_key=True),
    words("kind"),
    words("missing"),
    words("detail"),
    Column("about", JSONB, nullable=False),
    time("first_at", nullable=False),
    time("last_at", nullable=False),
    Index("ix_orphans_kind", "kind", "key"),
    Index("ix_orphans_last_at", "last_at"),
)

surveys = Table(
    "surveys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("place", JSONB(none_as_null=True)),  # where the current round goes on; null: no round is under way
    time("began_at"),  # of the newest round
    time("ended_at"),  # of the newest round that ended
    Column("claim", Uuid),
    time("lease_until"),
)
