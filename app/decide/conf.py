"""What Airflow is given: the DAG, the run's name and its `conf`, frozen when the trigger fires. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.decide.state import NewTrigger
from app.policy.conf import conf_bytes
from app.policy.language.templates import render
from app.policy.schema import Route

CONF_BYTES = 16 * 1024
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class DagCall:
    """One DAG run to be: which Airflow (by its name in the policy), which DAG, under which id, with what."""

    airflow: str
    dag_id: str
    dag_run_id: str
    conf: dict[str, Any]


def dag_call(trigger: NewTrigger, route: Route, *, traceparent: str | None = None) -> DagCall:
    """Deterministic: the same trigger always asks for the same `dag_run_id`, so that asking twice starts one run.

    traceparent: of the trigger's trace, where there is one (app.kit.telemetry).
    """
    labels = trigger.group.labels
    return DagCall(
        airflow=route.dag.airflow,
        dag_id=str(render(route.dag.id, labels)),
        dag_run_id=f"gateway__{route.name}__{trigger.id}",
        conf=_conf(trigger, route, traceparent),
    )


def _conf(trigger: NewTrigger, route: Route, traceparent: str | None) -> dict[str, Any]:
    """The user's conf with `gateway` written last. What would make it larger than 16 KB is left out, and that is told:
    alerts are counted in `alerts_omitted`, and values of the group that are too long are cut and named in `labels_cut`.

    It always ends: the user's part is at most CONF_ROOM before it is filled in, and "…" is shorter than any placeholder. A
    value that is cut ends with it, so that it is nobody else's name.
    """
    most, room = 2 * CONF_BYTES, -1  # Not as long as they come: filled in hundreds of times they would take the memory.
    while room < 0 and most > 0:
        most //= 2
        cut = {name: text if len(text) <= most else text[:most] + "…" for name, text in trigger.group.labels.items()}
        conf = _without_alerts(trigger, route, traceparent, cut)
        room = CONF_BYTES - conf_bytes(conf) - len('"alerts_omitted": 1000000, ')
    about = conf["gateway"]
    for place, alert in enumerate(trigger.alerts):
        entry = {
            "alert_id": alert.alert_id,
            "severity": alert.severity,
            "timestamp": alert.starts_at.isoformat().replace("+00:00", "Z"),
            "labels": dict(alert.labels),
        }
        room -= conf_bytes(entry) + 2
        if room < 0:
            about["alerts_omitted"] = len(trigger.alerts) - place
            break
        about["alerts"].append(entry)
    return conf


def _without_alerts(
    trigger: NewTrigger, route: Route, traceparent: str | None, labels: Mapping[str, str]
) -> dict[str, Any]:
    """What stands in it whatever the alerts are, filled from `labels`. An `openlineage` of the user's own stays."""
    about: dict[str, Any] = {
        "trigger_id": str(trigger.id),
        "route": route.name,
        "reason": str(trigger.reason),
        "group": dict(labels),
        "alerts": [],
        "schema": SCHEMA,
    }
    if traceparent is not None:
        about["traceparent"] = traceparent
    if cut := [name for name, value in labels.items() if value != trigger.group.labels[name]]:
        about["labels_cut"] = cut
    rendered = render(route.dag.conf, labels)
    asked = trigger.ask.conf if trigger.ask else {}
    return {**_parent(trigger, route), **(rendered if isinstance(rendered, dict) else {}), **asked, "gateway": about}


def _parent(trigger: NewTrigger, route: Route) -> dict[str, Any]:
    """The trigger as the OpenLineage run that started the DAG run, and the root of all that follows.

    In the names that apache-airflow-providers-openlineage reads from `conf` since 2.8.0. A run's id is a UUID there, as a
    trigger's is.
    """
    if route.openlineage is None:
        return {}
    run = {"RunId": str(trigger.id), "JobNamespace": route.openlineage, "JobName": route.name}
    return {"openlineage": {f"{of}{name}": value for of in ("parent", "rootParent") for name, value in run.items()}}
