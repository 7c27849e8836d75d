"""The data model on one page. Postgres is the authority: what is not here did not happen.

decisions.py
    routes      one row a route that has a limit, to be locked while its fires are counted
    pauses      one row a route that a person has muted
    groups      one row a (route, mode, group): the facts that decisions are made from, with a version
    alerts      one row an episode: a fingerprint that fires until it is resolved, goes stale or begins anew
    decisions   what was concluded of an episode (or of a refused request), one row a change of mind
    triggers    our decision to start one DAG run, followed to its end
    schedules   one row a schedule of the policy: its newest occurrence, and what was decided of it
    idempotency requests that were answered 201, by their Idempotency-Key, for a day
    quarantine  bytes that could not be read, and why
    audit       what a person or a script asked for: trigger, reset, redrive, cancel, pause, resume, resolve, test, forget
notices.py
    notices     what a person must know of, one row an incident: it opens, and is resolved by its key
    tellings    one row a receiver of an incident: the outbox items that tell it, and when it is told again
kit/outbox/tables.py
    outbox      what must reach another server, one row an item
    attempts    what each attempt at an item brought; equal results in a row share a row
lineage.py
    reports     what components told of their work, by POST /api/v1/metadata
    records     metadata on its durable way to MLflow: one write of its REST API a row, in order per stream
    local_ids   what an id that a spool made up was called by MLflow
    promotions  one row a request to promote a model version or to roll back: verdicts, and the journal of the change
    runs        MLflow's runs as they were last seen, with the trigger that each names
    versions    MLflow's model versions, with the run that each names
    aliases     MLflow's aliases
    orphans     what lacks a link of its lineage, one row a fault
    surveys     how far the walk over MLflow has come
watch.py
    switches    one row a dead man's switch: the facts that its state is judged from
    flips       every change of a switch's state
    pings       what was said by request to a switch, the newest
    dag_reads   up to where the ended runs of a DAG were read, for the switches that expect a retrain
    watch       one row: until when somebody watched
"""

from app.kit.columns import metadata
from app.kit.outbox.tables import attempts, outbox
from app.tables.decisions import (
    QUIET_SINCE,
    alerts,
    audit,
    decisions,
    groups,
    idempotency,
    pauses,
    quarantine,
    routes,
    schedules,
    triggers,
)
from app.tables.lineage import (
    OPEN_PROMOTION,
    aliases,
    local_ids,
    orphans,
    promotions,
    records,
    reports,
    runs,
    surveys,
    versions,
)
from app.tables.notices import notices, tellings
from app.tables.watch import dag_reads, flips, pings, switches, watch

__all__ = [
    "OPEN_PROMOTION",
    "QUIET_SINCE",
    "alerts",
    "aliases",
    "attempts",
    "audit",
    "dag_reads",
    "decisions",
    "flips",
    "groups",
    "idempotency",
    "local_ids",
    "metadata",
    "notices",
    "orphans",
    "outbox",
    "pauses",
    "pings",
    "promotions",
    "quarantine",
    "records",
    "reports",
    "routes",
    "runs",
    "schedules",
    "surveys",
    "switches",
    "tellings",
    "triggers",
    "versions",
    "watch",
]
