"""The data model on one page. Postgres is the authority: what is not in these tables did not happen.

decisions.py
- `routes`: one row a route with a limit. It is locked while the fires of the route are counted.
- `pauses`: one row a route that a person has muted.
- `groups`: one row a (route, mode, group): the facts that decisions are made from, with a version.
- `alerts`: one row an episode. A fingerprint fires until it is resolved, goes stale or begins anew.
- `decisions`: the decisions on an episode, and the answer to each request. A new row when action, reason or trigger changes.
- `triggers`: our decisions to start one DAG run, followed to its end.
- `schedules`: one row a schedule of the policy: its newest occurrence, and the decision on it.
- `idempotency`: requests that were answered 201, by their Idempotency-Key, for a day.
- `quarantine`: bytes that could not be read, and why.
- `audit`: requests of people and scripts: trigger, reset, redrive, cancel, pause, resume, resolve, test, forget.
- `session_key`: one row: the random key that signs the sessions of browsers.

recorded.py
- `heard`: when an alert was heard, to the minute: one row an alert and six hours.
- `policies`: every policy that was in force, by its hash, without its secrets.
- `in_force`: one row a policy that came into force on a replica.
- `confirms`: the answers of Prometheus that counted.

backtests.py
- `backtests`: one row a backtest that was asked for over HTTP: the question, how far it is, and the answer for a day.

notices.py
- `notices`: one row an incident. It opens, and is resolved by its key.
- `tellings`: one row a receiver of an incident: the outbox items of its messages, and the time of the next one.

kit/outbox/tables.py
- `outbox`: one row an item that must reach another server.
- `attempts`: the result of each attempt at an item. Equal results in succession share a row.

lineage.py
- `reports`: the reports of components, by POST /api/v1/metadata.
- `records`: metadata on its durable way to MLflow: one row a write of its REST API, in order per stream.
- `local_ids`: MLflow's ids for the ids that a spool made up.
- `promotions`: one row a request to promote a version or to roll back: verdicts, the journal of the change, the probation.
- `runs`: MLflow's runs as they were last seen, with the trigger that each names.
- `versions`: MLflow's model versions, with the run that each names.
- `aliases`: MLflow's aliases, with the version that each names.
- `orphans`: one row a link that is missing in a lineage.
- `surveys`: the place of the walk through MLflow.

effects.py
- `effects`: one row a trigger that ended: whether it helped, and since when that is known.
- `outages`: the times in which no gateway ran, so that no alert could arrive.

watch.py
- `switches`: one row a dead man's switch: the facts that its state is judged from.
- `flips`: every change of a switch's state.
- `pings`: the newest pings of each switch.
- `dag_reads`: the point up to which the ended runs of a DAG were read, for the switches that expect a retrain.
- `watch`: one row: the time until which the gateway watched the switches.
"""

from app.kit.columns import metadata
from app.kit.outbox.tables import attempts, outbox
from app.tables.backtests import OPEN_BACKTEST, backtests
from app.tables.decisions import (
    QUIET_SINCE,
    SHAPE,
    alerts,
    audit,
    decisions,
    groups,
    idempotency,
    pauses,
    quarantine,
    routes,
    schedules,
    session_key,
    triggers,
)
from app.tables.effects import effects, judged_since, outages
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
from app.tables.recorded import confirms, heard, in_force, policies
from app.tables.watch import dag_reads, flips, pings, switches, watch

__all__ = [
    "OPEN_BACKTEST",
    "OPEN_PROMOTION",
    "QUIET_SINCE",
    "SHAPE",
    "alerts",
    "aliases",
    "attempts",
    "audit",
    "backtests",
    "confirms",
    "dag_reads",
    "decisions",
    "effects",
    "flips",
    "groups",
    "heard",
    "idempotency",
    "in_force",
    "judged_since",
    "local_ids",
    "metadata",
    "notices",
    "orphans",
    "outages",
    "outbox",
    "pauses",
    "pings",
    "policies",
    "promotions",
    "quarantine",
    "records",
    "reports",
    "routes",
    "runs",
    "schedules",
    "session_key",
    "surveys",
    "switches",
    "tellings",
    "triggers",
    "versions",
    "watch",
]
